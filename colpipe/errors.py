"""The one exception that users are meant to read."""


class ColpipeError(Exception):
    """Bad input or a broken environment: says which file, key or axis, what was seen, and what to do.

    Stages print it as one line and exit with status 1; anything else is a defect and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
