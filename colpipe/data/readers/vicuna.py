"""Vicuna-80 (FastChat): question.jsonl {question_id, text or turns, category}, and answer….jsonl {question_id, text}.

The questions have no right answers of their own: every staged file whose name begins with `answer` or `reference` gives a
reference to each. All rows are for testing.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath

from colpipe.data.files import rows_of, tables
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    names = tables(folder)
    given = [name for name in names if PurePath(name).name.startswith(("answer", "reference"))]
    if not given:
        raise ColpipeError(f"{folder}: no answer….jsonl; Rouge-L needs somebody's answers")
    references: dict[int, list[str]] = {}
    for _, row in rows_of(folder, {"question_id": int, "text": str}, given):
        references.setdefault(row["question_id"], []).append(row["text"])
    questions = [name for name in names if name not in given]
    for place, row in rows_of(folder, {"question_id": int, "category": str}, questions):
        answers = references.get(row["question_id"])
        if not answers:
            raise ColpipeError(f"{place}: question {row['question_id']} is in none of {given}")
        question = row["turns"][0] if row.get("turns") else row.get("text")
        if not isinstance(question, str):
            raise ColpipeError(f"{place}: has neither text nor turns; it has {sorted(row)}")
        yield {
            "id": str(row["question_id"]),
            "group": question,
            "split": "test",
            "kind": row["category"],
            "instruction": question,
            "input": "",
            "output": answers[0],
            **({"references": answers} if len(answers) > 1 else {}),
        }
