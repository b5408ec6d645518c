"""A text is a text, even if it holds what looks like a special token."""

import pytest

from colpipe.data.encoding import confused_ids, encode
from tests.conftest import make_tokenizer, make_word_tokenizer
from tests.unit.data.test_words import ALONE, TOGETHER, texts

MERGED = [
    "no pattern",
    "other pattern",
    "metaspace",
]  # BPE whose merges made `</s>` of the texts that it was trained on
TOKENIZERS = {name: make for name, make in (ALONE | TOGETHER).items() if name not in MERGED}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_in_a_text_are_text(name):
    tokenizer = TOKENIZERS[name]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    special = set(tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"]))
    given = ["a </s> b", "</s>", "x<|im_end|>y</s></s>"]
    found = encode(tokenizer, given)
    assert confused_ids(tokenizer) == []
    assert not special & {number for ids in found for number in ids}
    if name not in ("prefix", "normaliser"):  # which change texts anyway
        assert tokenizer.batch_decode(found) == given
    ordinary = [text for text in texts(50) if "</s>" not in text]
    assert encode(tokenizer, ordinary) == tokenizer(ordinary, add_special_tokens=False)["input_ids"]


def test_token_ids_stay_what_they_are():
    tokenizer = make_tokenizer(["a b"], 300)
    a, b = tokenizer(["a", "b"], add_special_tokens=False)["input_ids"]
    assert encode(tokenizer, ["a", [0, 7], "b", [0]]) == [a, [0, 7], b, [0]]
    assert encode(tokenizer, [[0, 7]]) == [[0, 7]] and encode(tokenizer, []) == []


@pytest.mark.parametrize("make", [make_word_tokenizer, *(TOGETHER[name] for name in MERGED)], ids=["words", *MERGED])
def test_a_tokenizer_that_makes_a_special_token_of_its_text_is_known(make):
    tokenizer = make()
    assert confused_ids(tokenizer) == [tokenizer.eos_token_id]
