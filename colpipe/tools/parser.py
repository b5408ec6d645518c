"""The command line of a command of `colpipe`."""

import argparse
from collections.abc import Iterable, Sequence

from colpipe.errors import ColpipeError, near


class Parser(argparse.ArgumentParser):
    """Of one command, whose module's docstring is its help.

    Args:
        command: `init`.
        text: the docstring.
        more: as in `argparse.ArgumentParser`.
    """

    def __init__(self, command: str, text: str | None, **more):
        formatter = argparse.RawTextHelpFormatter
        super().__init__(prog=f"colpipe {command}", description=text, formatter_class=formatter, **more)

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):  # type: ignore[override]  # overloads
        """As in argparse, which would say of a mistyped option that the right one is missing.

        Raises:
            ColpipeError: an option is unknown; names the nearest.
        """
        require_options(args or (), self._option_string_actions, self.prog)
        return super().parse_args(args, namespace)


def require_options(words: Iterable[str], known: Iterable[str], lists: str) -> None:
    """Refuse options that are not known; a beginning of one is, as in argparse.

    Args:
        lists: command whose --help lists them.

    Raises:
        ColpipeError: names the first of them, and what is near.
    """
    long = sorted(option for option in known if option.startswith("--"))
    for word in words:
        option = word.partition("=")[0]
        if option == "--":  # no options from here on
            return
        if option.startswith("--") and not any(each.startswith(option) for each in long):
            raise ColpipeError(f"{option}: no such option; {near(option, long) or f'{lists} --help lists them'}")
