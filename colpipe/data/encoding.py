"""Text as token ids: what looks like a special token in a text (`<|endoftext|>` in a page about tokenizers) is text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

Prompt = str | list[int]  # text, or token ids where a chat template wrote special tokens around it


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each text, without special tokens; prompts that are token ids already stay what they are."""
    plain = [text for text in texts if isinstance(text, str)]
    # not `verbose`: a text longer than the model's positions gives no warning, blocks and rows see to their lengths
    settings = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    found = iter(tokenizer(plain, return_attention_mask=False, **settings)["input_ids"] if plain else ())
    return [next(found) if isinstance(text, str) else text for text in texts]


def confused_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the special tokens that a tokenizer makes of their text all the same: those that are entries of its model.

    Byte-level BPE has none. The unknown token is not counted: it stands for what has no id of its own.
    """
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} | {tokenizer.eos_token_id}
    texts = [tokenizer.convert_ids_to_tokens(number) for number in sorted(known)]
    found = {number for ids in encode(tokenizer, [f"{text} a {text} b{text}c" for text in texts]) for number in ids}
    return sorted(known & found)
