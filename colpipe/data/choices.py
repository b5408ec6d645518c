"""What multiple-choice readers share, and which choice a text is."""

import string
import unicodedata
from collections.abc import Iterable, Sequence

import regex

from colpipe.data.writing import IN_WORD, WORD, compatible, folded, words
from colpipe.errors import ColpipeError

LETTERS = string.ascii_uppercase
MINUS = r"[\p{Pd}−]"
# A sign, a fraction, and what is computed or grouped are no punctuation: -5, .5, 1/2, 5:30, 3 × 10, 1 000.
NUMBER = regex.compile(
    rf"(?<!{IN_WORD})(?:{MINUS} ?)?√?(?:(?<![\p{{L}}\p{{N}}.])\.)?\p{{N}}+"
    rf"(?:(?:[.,:'’_⁄]| ?(?:{MINUS}|[+±~÷/×·*^]) ?| (?=\p{{N}}{{3}}(?!\p{{N}})))\p{{N}}+)*{IN_WORD}*",
    regex.V1,
)
GROUPED = regex.compile(r"(?<=\p{N})['’_](?=\p{N}{3}(?!\p{N}))| ")  # what groups the digits of a number
BLANK = regex.compile(r" (?=[\p{S}#%‰])")  # before a sign
SIGNED = regex.compile(r"[\p{L}\p{M}\p{N}]+|[\p{S}\p{Pd}#%&*/@\\_]")  # words, and signs that may tell choices apart
QUOTES = " \"'“‘«([{*_`"  # what may stand before an answer
HELD_BACK = 0.05  # share of the training rows that validates, where a data set's own validation rows are its test


def lettered(choices: Sequence[str]) -> str:
    """`A. first` and so on, a line each."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def letters(choices: Sequence[str]) -> list[str]:
    """The letters of these choices: the answers where choices are lettered."""
    return list(LETTERS[: len(choices)])


def require_letters(place: object, choices: Sequence[str]) -> None:
    """See that each choice can have a letter.

    Raises:
        ColpipeError: there are too many; the place is named.
    """
    if len(choices) > len(LETTERS):
        raise ColpipeError(f"{place}: has {len(choices)} choices; there are {len(LETTERS)} letters for them")


def likelihood(context: str, continuations: Sequence[str]) -> dict[str, list[str]]:
    """The same context before every continuation, with a space between, as lm-eval compares them."""
    return {"contexts": [context] * len(continuations), "continuations": [f" {text}" for text in continuations]}


def choice_of(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text is: letter for letter, or else but for its case; None where it is none of them, or several."""
    for fold in (str, folded):
        found = [choice for choice in choices if fold(_plain(choice)) == fold(_plain(text))]
        if len(set(map(_plain, found))) == 1:
            return found[0]
    return None


def parse_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer is, or opens with, ignoring case and punctuation; of several the longest.

    Where choices differ in punctuation only ("C", "C++"), the answer has to have it. None where the answer opens with no
    choice, or does not say with which.
    """
    if exact := choice_of(answer, choices):
        return exact
    opening, read = _read(answer), {choice: _read(choice) for choice in choices}
    fitting = [choice for choice, own in read.items() if own and opening[: len(own)] == own]
    longest = max((len(read[choice]) for choice in fitting), default=0)
    fitting = [choice for choice in fitting if len(read[choice]) == longest]
    if len(fitting) == 1:
        return fitting[0]
    return _opened(answer, fitting or [choice for choice, own in read.items() if not own])


def equal_choices(choices: Sequence[str]) -> tuple[str, str] | None:
    """Two choices that differ in case, blanks and punctuation at most, signs (C++, -1) aside; None where there are none. One
    without words and signs equals the empty one."""
    found: dict[tuple[str, ...], str] = {(): ""}
    for choice in choices:
        key = tuple(SIGNED.findall(folded(unicodedata.normalize("NFC", choice))))
        if key in found:
            return found[key], choice
        found[key] = choice
    return None


def _plain(text: str) -> str:
    """Composed characters, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _closed(text: str) -> str:
    """The same without blanks before signs: C ++ is C++, and 10 % is 10%."""
    return BLANK.sub("", _plain(text))


def _read(text: str) -> list[str]:
    """The words of a text; a number is one, with its sign and fraction."""
    text = compatible(text)
    found, end = [], 0
    for number in NUMBER.finditer(text):
        found += [*words(text[end : number.start()]), _number(number[0])]
        end = number.end()
    return found + words(text[end:])


def _number(text: str) -> str:
    """A number as it is compared: one kind of minus, a digit before the point, no blanks."""
    text = regex.sub(MINUS, "-", GROUPED.sub("", folded(text)))
    return regex.sub(r"^(-?)\.", r"\g<1>0.", text)


def _opened(answer: str, choices: Iterable[str]) -> str | None:
    """The longest choice that an answer opens with, character by character; None where there is none, or two are as long."""
    for fold in (str, folded):
        own = fold(_closed(answer))
        for text in (own, own.lstrip(QUOTES)):
            found = {choice for choice in choices if _opens(text, fold(_closed(choice)))}
            longest = [choice for choice in found if len(choice) == max(map(len, found))]
            if longest:
                return longest[0] if len(longest) == 1 else None
    return None


def _opens(text: str, choice: str) -> bool:
    """Whether a text begins with a choice, and no word of both goes on after it."""
    rest = text[len(choice) :]
    return bool(choice) and text.startswith(choice) and not (WORD.fullmatch(choice[-1]) and WORD.match(rest))
