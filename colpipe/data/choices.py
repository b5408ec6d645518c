"""What multiple-choice readers share."""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"
HELD_BACK = 0.05  # share of the training rows that validates, where a data set's own validation rows are its test


def lettered(choices: Sequence[str]) -> str:
    """`A. first` and so on, a line each."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def letters(choices: Sequence[str]) -> list[str]:
    """The letters of these choices: the answers where choices are lettered."""
    return list(LETTERS[: len(choices)])


def likelihood(context: str, continuations: Sequence[str]) -> dict[str, list[str]]:
    """The same context before every continuation, with a space between, as lm-eval compares them."""
    return {"contexts": [context] * len(continuations), "continuations": [f" {text}" for text in continuations]}
