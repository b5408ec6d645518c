"""The table of words gives what the tokenizer gives, to the last id, wherever it is used."""

import random

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from colpipe.data import words
from colpipe.data.words import PATTERNS, encoder, words_stand_alone
from tests.conftest import WORDS

PIECES = [
    *WORDS,
    "don't",
    "we'LL",
    "x's",
    "1234567",
    "3,14",
    "½",
    "²",
    "一二",
    "日本語",
    "é",
    "e\u0301",
    "\u0301",
    "ß",
    "…",
    "—",
]
PIECES += ["(a)", "!?", "__", "<s>", "</s>", "👩\u200d🚀", "ا", "\u200b", "नमस्ते", "A.B", "_x", "\x00", "\x1c", "\x85"]
SPACES = [" "] * 12 + [
    "",
    "  ",
    "   ",
    "\n",
    "\n\n",
    " \n",
    "\n ",
    "\t",
    " \t ",
    "\r\n",
    "\u00a0",
    " \u00a0",
    "\u3000",
    "\u2028 ",
]


def texts(count: int) -> list[str]:
    chance = random.Random(0)
    return ["".join(chance.choice(SPACES) + chance.choice(PIECES) for _ in range(chance.randrange(1, 60))) +
            chance.choice(SPACES) for _ in range(count)]  # fmt: skip


def byte_level(**more):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": True, **more})


def split(pattern: str):
    isolated = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([isolated, byte_level(use_regex=False)])


def make(steps, normalizer=None, added=(), model=None, trainer=trainers.BpeTrainer):
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = steps, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(300), trainer(vocab_size=700, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


ALONE = {
    "GPT-2": lambda: make(byte_level()),
    "NeoX": lambda: make(byte_level(), normalizers.NFC(), ["  ", "    ", "\t\t"]),
    "SmolLM2": lambda: make(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])),
    "Llama 3": lambda: make(split(PATTERNS[0])),
    "Qwen": lambda: make(split(PATTERNS[1]), normalizers.NFC()),
}
TOGETHER = {
    "prefix": lambda: make(byte_level(add_prefix_space=True)),
    "no pattern": lambda: make(byte_level(use_regex=False)),
    "other pattern": lambda: make(split(r"\s+|\S+ \S+")),
    "normaliser": lambda: make(byte_level(), normalizers.Prepend("x")),
    "token of two words": lambda: make(byte_level(), added=["of north"]),
    "metaspace": lambda: make(pre_tokenizers.Metaspace()),
}


@pytest.mark.parametrize("name", [*ALONE, *TOGETHER])
@pytest.mark.parametrize("kept", [0, 10**6])  # a table that begins anew with each batch, and one that never does
def test_equals_the_tokenizer(name, kept, monkeypatch):
    monkeypatch.setattr(words, "KEPT", kept)
    tokenizer = {**ALONE, **TOGETHER}[name]()
    assert words_stand_alone(tokenizer) == (name in ALONE)
    found, kind = encoder(tokenizer, np.dtype(np.uint16)), np.uint16
    given = texts(600)
    for start in range(0, len(given), 50):
        batch = given[start : start + 50]
        expected = tokenizer(batch, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert [np.frombuffer(ids, kind).tolist() for ids in found(batch)] == expected
