"""What a check finds, a line each."""

from collections.abc import Iterable
from typing import NamedTuple

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class Finding(NamedTuple):
    """A line of a check.

    Attributes:
        state: `passed`, `failed` or `not run`.
        name: what was looked at.
        said: numbers in words, or why it was not run.
        numbers: for the JSON.
    """

    state: str
    name: str
    said: str
    numbers: dict

    def line(self, check: str) -> str:
        return f"{self.state:<8} {check}: {self.name}: {self.said}"


def found(is_right: bool, name: str, said: str, **numbers) -> Finding:
    """A finding that passed where it is right."""
    return Finding(PASSED if is_right else FAILED, name, said, numbers)


def not_run(name: str, why: str) -> Finding:
    return Finding(NOT_RUN, name, why, {})


def lacks(name: str, modules: Iterable[str]) -> Finding:
    """What is not run because modules are not installed."""
    return not_run(name, f"needs {', '.join(modules)}")


def within(name: str, errors: dict[str, float], limit: float, what: str = "") -> Finding:
    """Whether all of some relative errors are below a limit; what is not a number is above it."""
    right = all(error <= limit for error in errors.values())
    shown = ", ".join(f"{key} {error:.1e}" for key, error in errors.items())
    return found(right, name, f"{what}{shown} (at most {limit:.0e})", limit=limit, **errors)
