"""MMLU and tinyMMLU, with the answer's index (cais/mmlu, tinyBenchmarks/tinyMMLU), or as first released, with its letter.

{question, subject, choices, answer 0…3}; CSV files without a header, `abstract_algebra_test.csv` with question, four choices
and a letter; or {question, choice0 … choice3, answer}, {question, A … D, answer} with a letter or an index.

Files named `test` are the test split, `validation` the validation split, `dev` (285 rows, the paper's 0.285K) and
`auxiliary_train`, where it is staged, the training split; rows of others are split by hash. Answers are letters.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from colpipe.data.choices import lettered, letters, likelihood, require_letters
from colpipe.data.files import Place, check, rows_of, split_in_name, tables
from colpipe.data.formats import Fields
from colpipe.errors import ColpipeError

COLUMNS = ("question", "A", "B", "C", "D", "answer")
NUMBERED = ("choice0", "choice1", "choice2", "choice3")
OPTIONAL: Fields = {"choices": list[str], "subject": str, **dict.fromkeys((*COLUMNS[1:5], *NUMBERED), str)}
KNOWN = ("possibly_contaminated_urls.txt",)


def records(folder: Path) -> Iterator[dict]:
    parts = [set(PurePath(name).parts[:-1]) for name in tables(folder)]
    subjects = [part for part in parts if part and not part & {"all", "auxiliary_train"}]
    if subjects and any("all" in part for part in parts):
        raise ColpipeError(
            f"{folder}: has {subjects[0].pop()} beside all, which has its rows too; name one under `files`"
        )
    fields = {"question": str, "answer": (int, str)}
    for place, row in rows_of(folder, fields, optional=OPTIONAL, columns=COLUMNS):
        choices, subject, right = _choices(place, row)
        about = f" about {subject.replace('_', ' ')}" if subject else ""
        question = row["question"].strip()
        text = f"{question}\n{lettered(choices)}"
        split = split_in_name(place.name)
        yield {
            "place": place,
            "id": place.id,
            "group": question,
            **({"split": "train" if split == "dev" else split} if split else {}),
            "kind": subject or "mmlu",
            "instruction": f"Answer this multiple choice question{about} with the letter of the right choice.",
            "input": text,
            "output": letters(choices)[right],
            "choices": letters(choices),
            "likelihood": likelihood(
                f"The following are multiple choice questions (with answers){about}.\n\n{text}\nAnswer:",
                letters(choices),
            ),
        }


def _choices(place: Place, row: dict) -> tuple[list[str], str, int]:
    """(choices, subject, the right one's index) of a row of any form."""
    answer = int(row["answer"]) if str(row["answer"]).isdecimal() else row["answer"]
    columns = next((names for names in (COLUMNS[1:5], NUMBERED) if names[0] in row), ())
    if columns:
        check(place, row, dict.fromkeys(columns, str))
        choices, subject = [row[name] for name in columns], row.get("subject") or _subject(place)
        if answer in letters(choices):
            answer = letters(choices).index(answer)
    else:
        check(place, {**row, "answer": answer}, {"subject": str, "choices": list[str], "answer": int})
        choices, subject = row["choices"], row["subject"]
        require_letters(place, choices)
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ColpipeError(f"{place}: answer {answer!r} is not the index of one of {len(choices)} choices")
    return choices, subject, answer


def _subject(place: Place) -> str:
    """What the files of the first release are named after."""
    match = re.match(r"(\w+)_(test|val|dev)\.", PurePath(place.name).name)
    return match[1] if match else ""
