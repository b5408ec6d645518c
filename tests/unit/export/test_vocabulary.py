"""Tokenizers that are written, and those that are refused because llama.cpp would read a text in another way."""

import json
import re

import pytest
from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from colpipe.errors import ColpipeError
from colpipe.export.vocabulary import vocabulary
from tests.conftest import make_word_tokenizer
from tests.unit.export.tiny import (
    NOT_PREFIXED,
    PREFIXED,
    RUNS,
    STEPS,
    longest_left_first,
    make_pieces,
    make_tokenizer,
    split,
    with_word,
)


@pytest.mark.parametrize("name", STEPS)
def test_pre_tokenizers_have_names(name):
    assert vocabulary(make_tokenizer(name), 391, "here").pre == name


@pytest.mark.parametrize(
    ("kind", "pre"), [(GPT2Tokenizer, "gpt-2"), (GPTNeoXTokenizer, "gpt-2"), (Qwen2Tokenizer, "qwen2")]
)
def test_the_families_own_tokenizers_have_names(kind, pre):
    """transformers builds their steps anew, whatever tokenizer.json says."""
    model = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokenizer = kind(vocab=model["vocab"], merges=list(map(tuple, model["merges"])), eos_token="<|endoftext|>")
    assert vocabulary(tokenizer, 400, "here").pre == pre


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [pre_tokenizers.Whitespace()],
        [pre_tokenizers.ByteLevel(add_prefix_space=True)],
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        split(r"\p{N}{1,2}"),
    ],
    ids=str,
)
def test_pre_tokenizers_without_a_name_are_refused(steps):
    with pytest.raises(
        ColpipeError, match=r"here: tokenizer\.json: pre_tokenizer .*: none that is known to be in llama"
    ):
        vocabulary(make_tokenizer(steps), 400, "here")


def refused(tokenizer, said: str) -> None:
    with pytest.raises(ColpipeError, match=re.escape(said)) as error:
        vocabulary(tokenizer, 400, "here")
    assert "\n" not in str(error.value)


def test_other_models_are_refused():
    refused(
        make_word_tokenizer(), "here: tokenizer.json: model WordLevel: exported are BPE tokenizers, byte-level or Sente"
    )
    pieces = Tokenizer(models.Unigram([("</s>", 0.0), ("a", -1.0)], unk_id=0))
    refused(PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>"), "model Unigram")
    bytes_too = Tokenizer(models.BPE({"</s>": 0, "a": 1}, [], byte_fallback=True))
    bytes_too.normalizer = NOT_PREFIXED
    said = "255 of 256 bytes have no token (<0x00>): llama.cpp falls back to all"  # not to that of a
    refused(PreTrainedTokenizerFast(tokenizer_object=bytes_too, eos_token="</s>"), said)


def test_sentencepieces_bpe_has_scores_instead_of_merges():
    tokenizer = make_pieces()
    found = vocabulary(tokenizer, 391, "here")
    assert (found.pre, found.merges, found.prefix, found.notes) == ("default", [], False, [])
    assert vocabulary(make_pieces(PREFIXED), 391, "here").prefix
    never = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=False)
    assert vocabulary(make_pieces(None, never), 391, "here") == found
    kinds = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256]
    assert found.types == [*kinds, *[TokenType.NORMAL] * 131, TokenType.USER_DEFINED]
    made = [id for id, token in enumerate(found.tokens) if len(token) > 1 and id >= 259 and token != "<note>"]
    assert [found.scores[id] for id in made] == [-float(place) for place in range(len(made))]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"pre_tokenizer": pre_tokenizers.Metaspace("▁", prepend_scheme="first")},
            "of a text that starts with a space",
        ),
        (
            {"normalizer": None, "pre_tokenizer": pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)},
            "of a text that starts with a space, Metaspace makes something else",
        ),
        (
            {"normalizer": normalizers.NFKC()},
            "normalizer [{'type': 'NFKC'}], pre_tokenizer None: llama.cpp replaces spaces by",
        ),
        ({"merges": lambda pairs: pairs[1:]}, "of which llama.cpp would make the token"),
        (
            {"merges": lambda pairs: sorted(pairs, key=lambda pair: len(pair[0]))},
            "comes after merges of other tokens than",
        ),
        ({"more": [AddedToken("a b", normalized=True)]}, "added token 'a b' is looked for after spaces are replaced"),
    ],
    ids=["first", "always", "NFKC", "a merge less", "merges in another order", "normalized"],
)
def test_pieces_that_llama_cpp_would_read_otherwise_are_refused(changed, said):
    refused(make_pieces(**changed), said)


def test_a_byte_may_be_named_as_its_character():
    """Conversions of Gemma's model call a byte by both, and a file keeps one of two words for an id."""
    steps = json.loads(make_pieces().backend_tokenizer.to_str())
    steps["model"]["vocab"]["\x01"] = steps["model"]["vocab"].pop("<0x01>")
    byte = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(steps)), eos_token="<|im_end|>")
    found = vocabulary(byte, 391, "here")
    assert (found.tokens[3 + 1], found.types[3 + 1]) == ("\x01", TokenType.NORMAL)
    assert byte("a\x01b")["input_ids"][1] == 3 + 1


def test_added_tokens_with_spaces_in_them():
    """Merges make them, if they are in the vocabulary; text alone would, if not."""
    assert vocabulary(make_pieces(more=[AddedToken("▁▁", normalized=False)]), 391, "here").types.count(4) == 1
    refused(make_pieces(more=[AddedToken("▁▁▁", normalized=False)]), "of which llama.cpp would make the token '▁▁▁'")


def test_changes_of_the_text_are_refused_but_composing_is_said():
    tokenizer = make_tokenizer(composed=True)
    assert vocabulary(tokenizer, 391, "here").notes == [
        "llama.cpp does not compose characters (NFC) as the tokenizer does"
    ]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    refused(tokenizer, "here: tokenizer.json: normalizer NFC, Lowercase: llama.cpp changes no text")


def test_words_that_are_not_merged():
    """With another pre-tokenizer than Llama 3's, llama.cpp merges every word: no difference where merges make all tokens."""
    tokenizer = make_tokenizer("qwen2")
    tokenizer.backend_tokenizer.model.ignore_merges = True
    assert vocabulary(tokenizer, 391, "here").pre == "qwen2"
    refused(with_word(tokenizer, "Ġqwxz"), "ignore_merges True: with 'qwen2', llama.cpp has the other, and 1 tokens")


def test_what_is_put_around_a_text():
    plain, begins = vocabulary(make_tokenizer(), 391, "here"), vocabulary(make_tokenizer(begins=True), 391, "here")
    assert (plain.begins, plain.ends, begins.begins, begins.ends) == (False, False, True, False)
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<note> $A", special_tokens=[("<note>", 390)]
    )
    refused(tokenizer, "here: its tokenizer makes [390, ")


def test_what_llama_cpp_does_otherwise_is_said():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    found = vocabulary(tokenizer, 400, "here")
    assert found.notes == [
        "8 rows of the embedding that no token has are named [PAD…]",
        "1 tokens take the space beside them (<mask>), which llama.cpp leaves there",
    ]
    few = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], unk_token="<unk>"))
    few.pre_tokenizer, few.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    found = vocabulary(PreTrainedTokenizerFast(tokenizer_object=few, eos_token="<unk>", unk_token="<unk>"), 4, "here")
    assert found.notes == ["254 of 256 bytes have no token: the tokenizer says <unk> there, llama.cpp nothing"]
    assert (found.tokens, found.merges) == (["<unk>", "a", "b", "ab"], ["a b"])


def test_runs_of_spaces_may_have_one_score():
    found = vocabulary(make_pieces(merges=longest_left_first, words=RUNS), 400, "here")
    (score,) = {found.scores[found.tokens.index(run)] for run in RUNS}
    assert score == min(
        found.scores[id] for id, token in enumerate(found.tokens) if len(token) > 1 and id in range(259, 390)
    )
    assert not any("runs of spaces" in note for note in found.notes)


def test_runs_of_spaces_that_llama_cpp_makes_otherwise_are_said():
    found = vocabulary(make_pieces(merges=lambda pairs: longest_left_first(pairs, sign=1), words=RUNS), 400, "here")
    assert "runs of spaces are other tokens in llama.cpp, from 5 spaces on" in found.notes


def test_families_own_sentencepiece_tokenizers():
    model = json.loads(make_pieces().backend_tokenizer.to_str())["model"]
    parts = {"vocab": model["vocab"], "merges": list(map(tuple, model["merges"])), "unk_token": "<unk>"}
    ends = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<unk>"}
    assert not vocabulary(GemmaTokenizer(**parts, **ends, mask_token="<unk>"), 400, "here").prefix
    refused(LlamaTokenizer(**parts, **ends), "of a text that starts with a space, Metaspace makes something else")


def test_two_tokens_of_one_name_or_one_id_are_refused():
    refused(make_tokenizer(more=["[PAD395]"]), "tokens 391 and 395 are both written '[PAD395]' in a GGUF file")
    tokenizer = make_tokenizer()
    steps = json.loads(tokenizer.backend_tokenizer.to_str())
    steps["model"]["vocab"]["Ġqwxz"] = 391  # where loading puts <note>
    both = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(steps)), eos_token="<|im_end|>")
    refused(both, "here: tokenizer.json: id 391 is 'Ġqwxz' in the vocabulary and '<note>' among added tokens")
