"""ARC-Easy and ARC-Challenge (allenai/ai2_arc), tinyARC (tinyBenchmarks/tinyAI2_arc).

{id, question, choices: {text, label}, answerKey}; labels are letters or, in some rows, digits. Files bring their splits.
Answers are letters.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood
from colpipe.data.files import check, rows_of, split_in_name
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"id": str, "question": str, "choices": dict, "answerKey": str}):
        check(f"{place}: choices", row["choices"], {"text": list, "label": list})
        texts, labels = row["choices"]["text"], row["choices"]["label"]
        if row["answerKey"] not in labels:
            raise ColpipeError(f"{place}: answerKey {row['answerKey']!r} is none of the labels {labels}")
        split = split_in_name(place.name)
        yield {
            "id": row["id"],
            "group": row["question"].strip(),
            **({"split": "validation" if split == "dev" else split} if split else {}),
            "kind": "arc",
            "instruction": "Answer this multiple choice question with the letter of the right choice.",
            "input": f"{row['question'].strip()}\n{lettered(texts)}",
            "output": letters(texts)[labels.index(row["answerKey"])],
            "choices": letters(texts),
            "likelihood": likelihood(f"Question: {row['question']}\nAnswer:", texts),
        }
