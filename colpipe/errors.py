"""The one exception that users are meant to read, and what to say of those that other libraries raise."""

import errno
import re
import shlex
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


class ColpipeError(Exception):
    """Bad input or a broken environment: says which file, key or axis, what was seen, and what to do.

    Stages print it as one line and exit with status 1; anything else is a defect and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near(word: str, known: Iterable[str]) -> str:
    """`did you mean init?` of a mistyped word; empty where nothing that is known is like it."""
    bare = {each.lstrip("-"): each for each in known}  # all options share their dashes
    found = get_close_matches(word.lstrip("-"), bare, 1)
    return f"did you mean {bare[found[0]]}?" if found else ""


def not_utf8(path: Path, error: UnicodeDecodeError, line: int) -> str:
    """What is wrong with a text file, and the command that mends it where it is in the encoding of Western Europe.

    Args:
        line: number of the line that the byte is in.
    """
    byte = error.object[error.start]
    old = "cp1252" if byte < 0xA0 else "latin1"  # which has no letters there
    command = f"iconv -f {old} -t utf-8 {shlex.quote(str(path))} > NEW"
    return f"is not UTF-8 ({error.reason} 0x{byte:02x}) in line {line:,}; convert it first: {command}"


# What Python, safetensors and torch say.
DISK_FULL = r"No space left|PytorchStreamWriter failed writing|iostream error|unexpected pos \d+ vs \d+"
NO_MEMORY = r"out of memory|not enough memory|an(no|')t allocate memory|bad_alloc|bad allocation|unable to mmap"
NO_MEMORY += r"|failed to map segment|can't start new thread"  # of a library, or a thread, that no room is left for


def advice_on(error: BaseException, output: Path) -> str | None:
    """What a user can do about an error that comes from the machine, in one line; None where it may be a defect."""
    said = f"{type(error).__name__}: {first_line(error)}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or re.search(DISK_FULL, str(error)):
        return f"no space left on the disk of {output}: free some and run again ({said})"
    if (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or re.search(NO_MEMORY, str(error))
    ):
        return (
            "out of memory: lower runtime.micro_batch, set runtime.gradient_checkpointing, lower the stage's max_length or "
            f"batch_size, or ask for more (--set-resources); what was saved is kept ({said})"
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename}: {error.strerror}: an input that went away, or a folder that cannot be written; "
            "see to it and run again"
        )
    return None


def failure_text(error: BaseException, output: Path) -> str:
    """What a failed job tells: one line where a user can do something about it, else the traceback."""
    if isinstance(error, ColpipeError):
        return f"error: {error}"
    if advice := advice_on(error, output):
        return f"error: {advice}"
    return "".join(traceback.format_exception(error))
