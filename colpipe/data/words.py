"""Token ids by looking words up: most words of a text were seen before, and a table is quicker than a tokenizer.

A tokenizer may be asked for the words alone if a space between two other characters always begins a piece of its own,
whatever stands around. That is so for byte-level BPE with the patterns of GPT-2, Llama 3 and Qwen; other tokenizers get
whole texts.
"""

import json
import re
from collections.abc import Callable
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerBase

from colpipe.data.encoding import encode

KEPT = 2**19  # characters of words in the table, which begins anew when it has more
WORD = re.compile(r"(?<=\S)(?= \S)")  # where a word begins: at a single space
PATTERNS = [  # of Llama 3 and Qwen: like GPT-2's, no alternative has a space anywhere but at its beginning or among spaces
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + numbers
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}{1,3}", r"\p{N}")
]


def encoder(tokenizer: PreTrainedTokenizerBase, kind: np.dtype) -> Callable[[list[str]], list[bytes]]:
    """Function from texts to their token ids (`encode`), each id in bytes of `kind`."""

    def whole(texts: list[str]) -> list[bytes]:
        return [np.array(ids, kind).tobytes() for ids in encode(tokenizer, texts)]

    table: dict[str, bytes] = {}
    size = 0

    def by_words(texts: list[str]) -> list[bytes]:
        nonlocal size
        if size > KEPT:
            table.clear()
            size = 0
        words = [WORD.split(text) for text in texts]
        if new := list(set(chain.from_iterable(words)) - table.keys()):
            tokenizer.backend_tokenizer.encode_special_tokens = True  # that is, as text
            found = tokenizer.backend_tokenizer.encode_batch(new, add_special_tokens=False)
            table.update((word, np.array(each.ids, kind).tobytes()) for word, each in zip(new, found, strict=True))
            size += sum(map(len, new))
        return [b"".join(map(table.__getitem__, each)) for each in words]

    if not words_stand_alone(tokenizer):
        return whole
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return by_words


def words_stand_alone(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is known that a text's ids are those of its words."""
    if not tokenizer.is_fast:
        return False
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = description["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    return (
        description["model"]["type"] == "BPE"
        and not description["model"].get("dropout")
        and (description["normalizer"] is None or description["normalizer"]["type"] == "NFC")
        and all(_keeps_words(step) for step in steps)
        and any(step["type"] == "Split" or step.get("use_regex") for step in steps)
        and all(_within_words(token) for token in description["added_tokens"])
    )


def _keeps_words(step: dict) -> bool:
    """Whether a step of pre-tokenising looks at no neighbour beyond a space."""
    if step.get("type") == "Split":
        return step["pattern"].get("Regex") in PATTERNS and step["behavior"] == "Isolated" and not step["invert"]
    return step.get("type") == "Digits" or (step.get("type") == "ByteLevel" and not step["add_prefix_space"])


def _within_words(token: dict) -> bool:
    """Whether an added token never reaches from one word into the next, nor looks at what stands beside it."""
    return not (token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"\S ", token["content"]))
