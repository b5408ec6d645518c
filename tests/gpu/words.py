"""A tokenizer of words, for the vocabulary of the small models."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.gpu.tiny import END, VOCABULARY


def tokenizer() -> PreTrainedTokenizerFast:
    """Of `</s>` and w0, w1, …; anything else is unknown."""
    ids = {"</s>": END, "<unk>": 1, **{f"w{n}": n + 2 for n in range(VOCABULARY - 2)}}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>", unk_token="<unk>")
