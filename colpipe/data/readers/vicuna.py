"""Vicuna-80 (FastChat): question.jsonl {question_id, text or turns, category}, and answers to them.

Answers are {question_id, text}, or as FastChat writes them now, {question_id, choices: [{turns}]}. The questions have no
right answers of their own: every staged file whose name, or folder, begins with `answer`, `reference` or `model_answer` is
a reference to each. All rows are for testing.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath

from colpipe.data.files import Place, check, rows_of, tables
from colpipe.errors import ColpipeError

ANSWERS = ("answer", "reference", "model_answer")


def records(folder: Path) -> Iterator[dict]:
    names = tables(folder)
    given = [name for name in names if any(part.startswith(ANSWERS) for part in PurePath(name).parts)]
    if not given:
        raise ColpipeError(f"{folder}: no answer….jsonl; Rouge-L needs somebody's answers")
    references: dict[int, list[str]] = {}
    for place, row in rows_of(folder, {"question_id": int}, given, {"text": str, "choices": list[dict]}):
        references.setdefault(row["question_id"], []).append(_first_turn(place, row))
    questions = [name for name in names if name not in given]
    optional = {"text": str, "turns": list[str]}
    for place, row in rows_of(folder, {"question_id": int, "category": str}, questions, optional):
        answers = references.get(row["question_id"])
        if not answers:
            raise ColpipeError(f"{place}: question {row['question_id']} is in none of {given}")
        question = row["turns"][0] if row.get("turns") else row.get("text")
        if not isinstance(question, str):
            raise ColpipeError(f"{place}: has neither text nor turns; it has {sorted(row)}")
        yield {
            "place": place,
            "id": str(row["question_id"]),
            "group": question,
            "split": "test",
            "kind": row["category"],
            "instruction": question,
            "input": "",
            "output": answers[0],
            **({"references": answers} if len(answers) > 1 else {}),
        }


def _first_turn(place: Place, row: dict) -> str:
    """The answer of a row of either form."""
    if row.get("text") is not None or not row.get("choices"):
        check(place, row, {"text": str})
        return row["text"]
    check(f"{place}: choices", row["choices"][0], {"turns": list[str]})
    if not row["choices"][0]["turns"]:
        raise ColpipeError(f"{place}: choices: field 'turns' is '[]' (list); expected one answer at least")
    return row["choices"][0]["turns"][0]
