"""Rows that ask for the last word of a sentence, where the words before it have it already (LAMBADA's idea)."""

import regex

from colpipe.data.choices import likelihood

LAST_WORD = "last-word"  # kind of these rows
LEAST = 30  # words that come before it
# Letters only, after a single space, at the end of a sentence.
ENDING = regex.compile(r"(?<=\S )\p{L}{4,}(?=[.!?](?:\s|\Z))")


def last_word_row(context: str, word: str) -> dict:
    """A row of this kind, without place, name and split: a context without a blank at its end, and the word after it."""
    return {
        "kind": LAST_WORD,
        "instruction": "Write the word that comes next.",
        "input": context,
        "output": word,
        "likelihood": likelihood(context, [word]),
    }


def guessable_last_word(text: str) -> tuple[str, str] | None:
    """The opening of a text up to the last word of a sentence, and that word: the first of at least four letters with at
    least 30 words before it, one of which it is. None where there is none."""
    for found in ENDING.finditer(text):
        context, word = text[: found.start() - 1], found[0]
        if len(context.split()) >= LEAST and regex.search(rf"(?<![\p{{L}}\p{{N}}]){word}(?![\p{{L}}\p{{N}}])", context):
            return context, word
    return None
