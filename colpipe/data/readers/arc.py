"""ARC-Easy and ARC-Challenge (allenai/ai2_arc, and the JSON lines of its own release), tinyARC (tinyBenchmarks/tinyAI2_arc).

{id, question, choices: {text, label}, answerKey}, or {id, question: {stem, choices: [{text, label}]}, answerKey}; labels are
letters or, in some rows, digits. Files bring their splits. Answers are letters. Rows with a hidden label (an empty
answerKey), or with the same choice twice, are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood, require_letters
from colpipe.data.files import Place, check, rows_of, split_in_name
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(
        folder, {"id": str, "question": (str, dict)}, optional={"answerKey": str, "choices": dict}
    ):
        if row.get("answerKey") in (None, ""):
            yield {"left_out": "hidden label", "place": place}
            continue
        question, texts, labels = _question(place, row)
        if len(texts) != len(labels) or len(set(labels)) < len(labels):
            raise ColpipeError(f"{place}: has {len(texts)} choices and the labels {labels}")
        require_letters(place, texts)
        if row["answerKey"] not in labels:
            raise ColpipeError(f"{place}: answerKey {row['answerKey']!r} is none of the labels {labels}")
        if len({text.strip() for text in texts}) < len(texts):  # case tells choices apart here: TT, Tt
            yield {"left_out": "choices that cannot be told apart", "place": place}
            continue
        split = split_in_name(place.name)
        yield {
            "place": place,
            "id": row["id"],
            "group": question.strip(),
            **({"split": "validation" if split == "dev" else split} if split else {}),
            "kind": "arc",
            "instruction": "Answer this multiple choice question with the letter of the right choice.",
            "input": f"{question.strip()}\n{lettered(texts)}",
            "output": letters(texts)[labels.index(row["answerKey"])],
            "choices": letters(texts),
            "likelihood": likelihood(f"Question: {question}\nAnswer:", texts),
        }


def _question(place: Place, row: dict) -> tuple[str, list[str], list[str]]:
    """(question, texts of its choices, their labels) of a row of either form."""
    question = row["question"]
    if isinstance(question, str):
        check(place, row, {"choices": dict})
        check(f"{place}: choices", row["choices"], {"text": list[str], "label": list[str]})
        return question, row["choices"]["text"], row["choices"]["label"]
    check(f"{place}: question", question, {"stem": str, "choices": list[dict]})
    for number, choice in enumerate(question["choices"], 1):
        check(f"{place}: choice {number}", choice, {"text": str, "label": str})
    texts, labels = ([choice[name] for choice in question["choices"]] for name in ("text", "label"))
    return question["stem"], texts, labels
