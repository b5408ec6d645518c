"""In-step state on disk: what a job that was cut off goes on from, and checksums of it (no torch here)."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colpipe.jobs.artifacts import write_json

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
COMPLETE = "complete"  # the marker in a folder; a file's has its name before it


def checksum(path: Path, size: int | None = None) -> int:
    """CRC-32 of a file's first bytes, or of all: faster than disks, and no accident gets past it."""
    total, left = 0, float("inf") if size is None else size
    with open(path, "rb") as file:
        while left and (block := file.read(int(min(left, 2**22)))):
            total, left = zlib.crc32(block, total), left - len(block)
    return total


def starts_with(path: Path, size: int, found: int) -> bool:
    """Whether a file's first bytes are still those whose checksum was found."""
    return path.exists() and path.stat().st_size >= size and checksum(path, size) == found


def mark_complete(path: Path, *beside: Path) -> None:
    """Mark a file or folder as complete: its checksums are kept with it, and must be right for it to be used.

    Args:
        beside: files that grow while the job goes on, such as its metrics: what they hold now must still be there.
    """
    own = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    write_json(_marker_of(path), {"whole": _sums(own, path.parent), "begun": _sums(beside, path.parent)})


def _sums(paths: Iterable[Path], folder: Path) -> dict[str, list[int]]:
    """Name, as seen from a folder → size and checksum."""
    return {os.path.relpath(path, folder): [path.stat().st_size, checksum(path)] for path in paths}


def is_complete(path: Path) -> bool:
    """Whether a file or folder was written to its end, damaged since or not."""
    return _marker_of(path).exists()


def is_valid(path: Path) -> bool:
    """Whether it is what was marked as complete, undamaged."""
    try:
        kept = json.loads(_marker_of(path).read_text())
        whole = all(
            (path.parent / name).stat().st_size == size and starts_with(path.parent / name, size, found)
            for name, (size, found) in kept["whole"].items()
        )
        return whole and all(starts_with(path.parent / name, *begun) for name, begun in kept["begun"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def discard(path: Path) -> None:
    """Delete a file and its marker."""
    _marker_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _marker_of(path: Path) -> Path:
    return path / COMPLETE if path.is_dir() else path.with_name(f"{path.name}.{COMPLETE}")


def write_record(path: Path, value: object) -> None:
    """Write a JSON value, whole or not at all, with its checksum."""
    write_json(path, [_checksum_of(value), value])


def read_record(path: Path) -> Any:
    """The value that was kept; None where there is none or it is damaged."""
    try:
        found, value = json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return None
    return value if _checksum_of(value) == found else None


def _checksum_of(value: object) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
