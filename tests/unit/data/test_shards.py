"""Shards: what was appended comes back, wherever the cuts are, also after a kill between two kept counts."""

import numpy as np
import pytest

from colpipe.data import shards
from colpipe.data.shards import NOTHING, Piece, Tokens, append, documents_in, id_type, shard_count
from colpipe.errors import ColpipeError

LENGTHS = [
    3,
    1,
    7,
    25,
    2,
    10,
    5,
    5,
    10,
    1,
    4,
]  # of documents, tokens: some end on a border of 10, one holds two borders


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SIZE", 10)


def pieces(vocabulary: int = 500) -> list[Piece]:
    """One document each."""
    ids = iter(np.random.default_rng(0).integers(0, vocabulary, sum(LENGTHS)).tolist())
    kind = id_type(vocabulary)
    return [
        Piece(np.array([next(ids) for _ in range(length)], kind), np.array([length]), np.array([2 * length]))
        for length in LENGTHS
    ]


def joined(parts: list[Piece]) -> Piece:
    lengths = [len(part.ids) for part in parts]
    sizes = np.concatenate([part.sizes for part in parts])
    return Piece(np.concatenate([part.ids for part in parts]), np.cumsum(lengths), sizes)


def write(folder, parts: list[Piece], counts=NOTHING) -> dict:
    for part in parts:
        counts = append(folder, "train", counts, part)
    return counts


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_npy_files_with_the_ends_of_their_documents(tmp_path):
    counts = write(tmp_path, pieces())
    assert counts == {"documents": 11, "tokens": 73, "bytes": 146, "special": 0, "ended": 1}
    assert shard_count(counts) == 8
    ids, ends = joined(pieces()).ids, np.cumsum(LENGTHS)
    for number in range(8):
        shard = np.load(tmp_path / f"train-{number:05d}.npy")
        assert shard.dtype == np.uint16
        assert np.array_equal(shard, ids[10 * number : 10 * number + 10])
        inside = np.load(tmp_path / f"train-{number:05d}.ends.npy")
        assert (inside + 10 * number).tolist() == [end for end in ends if 10 * number < end <= 10 * number + 10]
        np.save(tmp_path / "numpy.npy", shard)  # not a byte differs from what numpy would have written
        assert (tmp_path / "numpy.npy").read_bytes() == (tmp_path / f"train-{number:05d}.npy").read_bytes()
        sizes = np.load(tmp_path / f"train-{number:05d}.sizes.npy")
        assert sizes.tolist() == [
            2 * length for length, end in zip(LENGTHS, ends, strict=True) if 10 * number < end <= 10 * number + 10
        ]
    assert len(content(tmp_path)) == 25
    found = documents_in(tmp_path, "train")
    assert [values.tolist() for values in found] == [ends.tolist(), [2 * length for length in LENGTHS]]


@pytest.mark.parametrize("together", [1, 2, 3, 11])
def test_it_does_not_matter_how_many_come_together(tmp_path, together):
    parts = pieces()
    (tmp_path / "one").mkdir()
    (tmp_path / "some").mkdir()
    alone = write(tmp_path / "one", parts)
    some = [joined(parts[start : start + together]) for start in range(0, len(parts), together)]
    assert write(tmp_path / "some", some) == alone
    assert content(tmp_path / "some") == content(tmp_path / "one")


def test_what_was_written_after_the_kept_counts_is_written_again(tmp_path):
    parts = pieces()
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole", parts)
    for kept in range(len(parts)):
        for killed in range(kept, len(parts) + 1):
            folder = tmp_path / f"{kept}-{killed}"
            folder.mkdir()
            counts = write(folder, parts[:kept])
            write(folder, parts[kept:killed], counts)
            for path in folder.iterdir():  # a write that was cut short
                new = int(path.name[6:11]) >= shard_count(counts)
                path.write_bytes(b"half" if new else path.read_bytes() + b"half")
            write(folder, parts[kept:], counts)
            for name, expected in content(tmp_path / "whole").items():
                if int(name[6:11]) >= counts["tokens"] // 10:  # full shards before are not touched again
                    assert (folder / name).read_bytes() == expected, (kept, killed, name)


@pytest.mark.parametrize(("vocabulary", "kind"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_the_vocabulary_decides_the_type(tmp_path, vocabulary, kind):
    assert id_type(vocabulary) == kind
    highest = Piece(np.array([vocabulary - 1, 0], id_type(vocabulary)), np.array([2]), np.array([1]))
    append(tmp_path, "train", NOTHING, highest)
    assert np.load(tmp_path / "train-00000.npy").dtype == kind
    assert Tokens(tmp_path, "train").read(0, 2).tolist() == [vocabulary - 1, 0]


def test_reading_crosses_borders(tmp_path):
    write(tmp_path, pieces())
    tokens, ids = Tokens(tmp_path, "train"), joined(pieces()).ids
    assert len(tokens) == 73
    for start in range(73):
        for stop in range(start + 1, 74):
            assert np.array_equal(tokens.read(start, stop), ids[start:stop])
    assert tokens.read(0, 1).dtype == np.int64
    assert all(isinstance(shard, np.memmap) for shard in tokens.shards)


def test_a_split_without_shards_is_named(tmp_path):
    write(tmp_path, pieces())
    with pytest.raises(ColpipeError, match=r"validation-00000.npy: not found; delete .*manifest.json"):
        Tokens(tmp_path, "validation")
