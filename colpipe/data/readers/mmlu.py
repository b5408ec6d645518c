"""MMLU (cais/mmlu) and tinyMMLU (tinyBenchmarks/tinyMMLU): {question, subject, choices, answer 0…3}.

Files named `test` are the test split, `validation` the validation split, `dev` (285 rows, the paper's 0.285K) and
`auxiliary_train`, where it is staged, the training split. Answers are letters.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood
from colpipe.data.files import rows_of, split_in_name
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"question": str, "subject": str, "choices": list, "answer": int}):
        choices, subject = row["choices"], row["subject"].replace("_", " ")
        if not 0 <= row["answer"] < len(choices):
            raise ColpipeError(f"{place}: answer {row['answer']} is not the index of one of {len(choices)} choices")
        question = row["question"].strip()
        text = f"{question}\n{lettered(choices)}"
        split = split_in_name(place.name)
        about = f" about {subject}" if subject else ""
        yield {
            "id": place.id,
            "group": question,
            "split": split if split in ("validation", "test") else "train",
            "kind": row["subject"] or "mmlu",
            "instruction": f"Answer this multiple choice question{about} with the letter of the right choice.",
            "input": text,
            "output": letters(choices)[row["answer"]],
            "choices": letters(choices),
            "likelihood": likelihood(
                f"The following are multiple choice questions (with answers){about}.\n\n{text}\nAnswer:",
                letters(choices),
            ),
        }
