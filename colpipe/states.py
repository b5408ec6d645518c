"""In-step state on disk: what a job that was cut off goes on from, and checksums of it (no torch here)."""

import json
import os
import zlib
from pathlib import Path

from colpipe.checkpoint import write_json

COMPLETE = "complete"  # the seal of a folder; a file's has its name before it


def checksum(path: Path, start: int = 0, stop: int | None = None) -> int:
    """CRC-32 of a file's bytes from `start` up to `stop`: faster than disks, and no accident gets past it."""
    total, left = 0, float("inf") if stop is None else stop - start
    with open(path, "rb") as file:
        file.seek(start)
        while left and (block := file.read(int(min(left, 2**22)))):
            total, left = zlib.crc32(block, total), left - len(block)
    return total


def seal(path: Path, *beside: Path) -> None:
    """Mark a file or folder as complete: its checksums are kept with it, and must be right for it to be used.

    Args:
        beside: files that grow while the job goes on, such as its metrics: what they hold now must still be there.
    """
    own = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    whole = {os.path.relpath(each, path.parent): [each.stat().st_size, checksum(each)] for each in own}
    begun = {os.path.relpath(each, path.parent): [each.stat().st_size, checksum(each)] for each in beside}
    write_json(_seal_of(path), {"whole": whole, "begun": begun})


def is_sealed(path: Path) -> bool:
    """Whether a file or folder was written to its end, damaged since or not."""
    return _seal_of(path).exists()


def is_sound(path: Path) -> bool:
    """Whether it is what was sealed."""
    try:
        kept = json.loads(_seal_of(path).read_text())
        whole = all(
            (path.parent / name).stat().st_size == size and checksum(path.parent / name) == found
            for name, (size, found) in kept["whole"].items()
        )
        return whole and all(
            checksum(path.parent / name, 0, size) == found for name, (size, found) in kept["begun"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def discard(path: Path) -> None:
    """Delete a sealed file."""
    _seal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _seal_of(path: Path) -> Path:
    return path / COMPLETE if path.is_dir() else path.with_name(f"{path.name}.{COMPLETE}")


def keep_record(path: Path, value: object) -> None:
    """Write a JSON value, whole or not at all, with its checksum."""
    write_json(path, [_checksum_of(value), value])


def kept_record(path: Path) -> object | None:
    """The value that was kept; None where there is none or it is damaged."""
    try:
        found, value = json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return None
    return value if _checksum_of(value) == found else None


def _checksum_of(value: object) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
