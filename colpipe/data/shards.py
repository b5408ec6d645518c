"""Token ids of a prepared corpus in files of equal length, written by appending and read through memory maps.

    train-00000.npy        `SIZE` ids, fewer in a split's last shard; a document may go on in the next shard
    train-00000.ends.npy   positions in the shard after each end-of-text that it holds
    train-00000.sizes.npy  bytes of UTF-8 of the text of each document that ends in it

How far a split is written is known to its counts only, never to its files: whatever files hold beyond the counts is written
again. Counts that were kept are therefore all that a job needs to go on after a kill.
"""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colpipe.errors import ColpipeError

SIZE = 2**24  # tokens in a shard
NOTHING = {
    "documents": 0,
    "tokens": 0,
    "bytes": 0,
    "special": 0,
    "ended": 0,
}  # counts of a split before its first document


class Piece(NamedTuple):
    """Whole documents, tokenised."""

    ids: np.ndarray
    """(N,) of `id_type`: the documents end to end, with end-of-text after each"""
    ends: np.ndarray
    """(D,): positions after each document's end-of-text"""
    sizes: np.ndarray
    """(D,): bytes of UTF-8 of each document's text"""
    special: int = 0
    """special tokens that the tokenizer made of their text (`confused_ids`)"""


def id_type(vocabulary: int) -> np.dtype:
    """The smallest type that holds the ids of a vocabulary."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where the ids of a shard are."""
    return folder / f"{split}-{number:05d}.npy"


def shard_files(folder: Path, split: str, number: int) -> list[Path]:
    """All files of a shard: its ids, and ends and sizes of the documents that end in it."""
    path = shard_path(folder, split, number)
    return [path, path.with_suffix(".ends.npy"), path.with_suffix(".sizes.npy")]


def shard_count(counts: dict[str, int]) -> int:
    """Shards that a split takes, the last one perhaps not full."""
    return -(-counts["tokens"] // SIZE)


def append(folder: Path, split: str, counts: dict[str, int], piece: Piece) -> dict[str, int]:
    """Write documents behind those that were counted so far.

    Args:
        folder: of the shards.
        counts: of the split before: its `documents`, `tokens`, `bytes`, `special` tokens made of text, and how many
            documents `ended` in its last shard.

    Returns:
        The counts after.
    """
    start, ended = counts["tokens"], counts["ended"]
    stop = start + len(piece.ids)
    ends: np.ndarray = start + piece.ends
    for number in range(start // SIZE, -(-stop // SIZE)):
        begin = number * SIZE
        first, last = max(start, begin), min(stop, begin + SIZE)
        if first == begin:
            ended = 0
        here = (ends > first) & (ends <= last)
        ids, positions, sizes = shard_files(folder, split, number)
        _write(ids, piece.ids[first - start : last - start], first - begin)
        _write(positions, (ends[here] - begin).astype(np.uint32), ended)
        _write(sizes, piece.sizes[here].astype(np.uint32), ended)
        ended += int(here.sum())
    more = {
        "documents": len(ends),
        "tokens": len(piece.ids),
        "bytes": int(piece.sizes.sum()),
        "special": piece.special,
    }
    return {name: counts[name] + count for name, count in more.items()} | {"ended": ended}


def _write(path: Path, values: np.ndarray, position: int) -> None:
    """Make values the end of a one-dimensional .npy file, from a position on."""
    header = io.BytesIO()  # numpy pads it, so that its length does not depend on the array's
    descr = np.lib.format.dtype_to_descr(values.dtype)
    shape = (position + len(values),)
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    with open(path, "r+b" if position else "wb") as file:
        file.write(header.getvalue())
        file.seek(position * values.itemsize, os.SEEK_CUR)
        file.write(values.tobytes())
        file.truncate()


def shard_checksums(files: Sequence[Path], tokens: int, ended: int | None) -> list[int] | None:
    """Those of a shard's first `tokens` ids and of its first `ended` ends and sizes (None: all); None where these are not
    there."""
    found = []
    for each, count in zip(files, (tokens, ended, ended), strict=True):
        try:
            values = np.load(each)
        except (OSError, ValueError, EOFError):
            return None
        if len(values) < (count or 0):
            return None
        found.append(zlib.crc32(values[:count].tobytes(), zlib.crc32(values.dtype.str.encode())))
    return found


class Tokens:
    """The ids of a split, one sequence over all of its shards; nothing is read before it is asked for.

    Raises:
        ColpipeError: the folder has no shards of the split.
    """

    def __init__(self, folder: Path, split: str):
        paths = sorted(folder.glob(f"{split}-{'[0-9]' * 5}.npy"))
        if not paths:
            raise ColpipeError(
                f"{shard_path(folder, split, 0)}: not found; delete {folder}/manifest.json to have the corpus made again"
            )
        self.shards = [np.load(path, mmap_mode="r") for path in paths]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids from one position up to another, (stop − start,) int64."""
        first = np.searchsorted(self.starts, start, "right") - 1
        last = np.searchsorted(self.starts, stop, "left")
        parts = zip(self.shards[first:last], self.starts[first:last].tolist(), strict=True)
        pieces = [shard[max(0, start - begin) : stop - begin] for shard, begin in parts]
        return np.concatenate(pieces, dtype=np.int64)


def documents_in(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(D,) positions in a split after each document's end-of-text, and (D,) bytes of each document's text; both int64."""
    files = [shard_files(folder, split, number) for number in range(len(Tokens(folder, split).shards))]
    ends = [number * SIZE + np.load(positions).astype(np.int64) for number, (_, positions, _) in enumerate(files)]
    return np.concatenate(ends), np.concatenate([np.load(sizes).astype(np.int64) for _, _, sizes in files])
