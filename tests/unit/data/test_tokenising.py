"""Tokenising on several processes is a loop of tokenizer calls, only faster."""

import os
import signal
import time
from contextlib import closing
from itertools import chain

import numpy as np
import pytest

from colpipe.data import tokenising
from colpipe.data.encoding import encode
from colpipe.data.shards import Piece
from colpipe.data.tokenising import tokenise
from colpipe.errors import ColpipeError
from tests.conftest import WORDS, make_tokenizer, make_word_tokenizer

SPLITS = ("train", "train", "test", "validation", "train")
DOCUMENTS = [
    (SPLITS[number % 5], " ".join(WORDS[: 1 + number * 7 % 20]) + f" Nr. {number} – ünï</s>") for number in range(100)
]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([text for _, text in DOCUMENTS], 300)


def collect(batches) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for batch in batches:
        for split, piece in batch.items():
            found.setdefault(split, []).append(piece)
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 500, 10**6])  # batches of one document, of a few, one batch of all
def test_equals_a_loop_of_calls(tokenizer, monkeypatch, workers, size):
    monkeypatch.setattr(tokenising, "BATCH", size)
    found = collect(tokenise(iter(DOCUMENTS), tokenizer, workers))
    for split in set(SPLITS):
        texts = [text for each, text in DOCUMENTS if each == split]
        expected = [[*ids, tokenizer.eos_token_id] for ids in encode(tokenizer, texts)]
        ids = np.concatenate([piece.ids for piece in found[split]])
        assert ids.dtype == np.uint16 and ids.tolist() == list(chain.from_iterable(expected))
        lengths = np.concatenate([np.diff(piece.ends, prepend=0) for piece in found[split]])
        assert lengths.tolist() == [len(ids) for ids in expected]
        assert np.concatenate([piece.sizes for piece in found[split]]).tolist() == [
            len(text.encode()) for text in texts
        ]


@pytest.mark.parametrize("text", ["</s>", "a </s> b", "a</s>b </s></s>\n</s>"])
def test_the_text_of_a_special_token_stays_text(tokenizer, text):
    [[piece]] = collect(tokenise(iter([("train", text)]), tokenizer, 1)).values()
    *ids, end = piece.ids.tolist()
    assert end == tokenizer.eos_token_id and end not in ids
    assert tokenizer.decode(ids) == text
    assert piece.special == 0


def test_what_a_tokenizer_cannot_keep_as_text_is_counted():
    texts = [("train", "a </s> b </s>"), ("train", "b a"), ("train", "x </s> y")]
    [[piece]] = collect(tokenise(iter(texts), make_word_tokenizer(), 1)).values()
    assert piece.special == 3 and len(piece.ends) == 3  # nor the unknown words, nor the ends of the documents


def test_a_handful_of_batches_is_read_ahead(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenising, "BATCH", 1)
    taken = 0

    def documents():
        nonlocal taken
        for document in DOCUMENTS:
            taken += 1
            yield document

    with closing(tokenise(documents(), tokenizer, 2)) as batches:
        next(batches)
        assert taken <= 4


def test_nothing_gives_nothing(tokenizer):
    assert list(tokenise(iter([]), tokenizer, 2)) == []


def children() -> list[int]:
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return [int(child) for child in file.read().split()]


def test_processes_end_with_the_generator(tokenizer):
    before = children()
    batches = tokenise(iter(DOCUMENTS), tokenizer, 2)
    with closing(batches):
        next(batches)
        assert len(children()) == len(before) + 2
    assert children() == before


def test_a_process_that_was_killed_is_reported(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenising, "BATCH", 1)
    before = children()
    with closing(tokenise(iter(DOCUMENTS), tokenizer, 2)) as batches:
        next(batches)
        for child in set(children()) - set(before):
            os.kill(child, signal.SIGKILL)
        with pytest.raises(ColpipeError, match=r"a tokenising process ended early: .* use fewer threads"):
            list(batches)
    assert children() == before


def test_processes_end_with_a_parent_that_was_killed(tokenizer):
    ours, theirs = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            batches = tokenise(iter(DOCUMENTS), tokenizer, 2)
            next(batches)
            os.write(theirs, " ".join(map(str, children())).encode())
            time.sleep(60)
        finally:
            os._exit(0)
    workers = os.read(ours, 1000).decode().split()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(running(worker) for worker in workers)


def running(process: str) -> bool:
    """Whether a process exists and is not a zombie, which nobody may be there to collect."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
