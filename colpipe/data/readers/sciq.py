"""SciQ (allenai/sciq): {question, support, correct_answer, distractor1, distractor2, distractor3}.

Files bring their splits; by hash of the question where no name says one. Choices are in the order of the alphabet, which
says nothing of the right one; the answer is its text. Rows with choices that cannot be told apart are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import equal_choices, likelihood
from colpipe.data.files import rows_of, split_in_name

CHOICES = ("correct_answer", "distractor1", "distractor2", "distractor3")


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, dict.fromkeys(("question", "support", *CHOICES), str)):
        choices = sorted(row[name] for name in CHOICES)
        if equal_choices(choices):
            yield {"left_out": "choices that cannot be told apart", "place": place}
            continue
        split = split_in_name(place.name)
        yield {
            "place": place,
            "id": place.id,
            "group": row["question"],
            **({"split": "validation" if split == "dev" else split} if split else {}),
            "kind": "sciq",
            "instruction": f"{row['question']} Answer with one of these: {'; '.join(choices)}.",
            "input": row["support"].strip(),
            "output": row["correct_answer"],
            "choices": choices,
            "likelihood": likelihood(f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:", choices),
        }
