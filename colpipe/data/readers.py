"""Raw files → documents and instructions. One function a format; a new one is added without touching the others.

A reader takes the staged files and yields records:

    {"id": …, "group": …, "text": …}                                               a document
    {"id": …, "group": …, "kind": …, "instruction": …, "input": …, "output": …}    an instruction

`group` is what must not be shared between splits (a title, a passage); `split` fixes the split where the files bring
their own; `choices` lists the allowed answers of a multiple-choice row.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from colpipe.checkpoint import content_files
from colpipe.errors import ColpipeError
from colpipe.settings import Dataset

Record = dict


def read(dataset: Dataset, folder: Path) -> Iterator[Record]:
    """All records of a staged data set, each with its split.

    Raises:
        ColpipeError: a file is not what the reader expects (named with its line), or nothing was found.
    """
    files = content_files(folder)
    found = False
    for record in READERS[dataset.reader](files):
        found = True
        yield {"split": split_of(record["group"], dataset.validation, dataset.test), **record}
    if not found:
        raise ColpipeError(f"{folder}: the {dataset.reader} reader found no rows in {[path.name for path in files]}")


def split_of(group: str, validation: float, test: float) -> str:
    """Split of a group by the hash of its name: the same in every data set that uses it, whatever else is in there."""
    position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def json_lines(path: Path, required: Iterable[str]) -> Iterator[tuple[int, dict]]:
    """Rows of a JSON-lines file with their line numbers.

    Raises:
        ColpipeError: a line is not a JSON object or lacks a required field.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ColpipeError(f"{path}:{number}: is not JSON: {error}") from None
            if missing := [field for field in required if not isinstance(row, dict) or field not in row]:
                raise ColpipeError(f"{path}:{number}: has no field {missing[0]!r}; it has {sorted(row)}")
            yield number, row


def wikipedia_leads(files: list[Path]) -> Iterator[Record]:
    """{title: {title, extract, description}}: the lead sections of Wikipedia articles, some with a one-line description.

    Kinds: `describe` (title → description) and `lead` (title → lead section).
    """
    for path in files:
        try:
            articles = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ColpipeError(f"{path}: is not JSON: {error}") from None
        for title, article in articles.items():
            base = {"id": title, "group": title}
            yield {**base, "text": article["extract"]}
            if article.get("description"):
                question = f"In a few words, what is {title}?"
                yield {
                    **base,
                    "kind": "describe",
                    "instruction": question,
                    "input": "",
                    "output": article["description"],
                }
            question = f"Write the opening of an encyclopedia article about {title}."
            yield {**base, "kind": "lead", "instruction": question, "input": "", "output": article["extract"]}


def boolq(files: list[Path]) -> Iterator[Record]:
    """BoolQ {question, passage, answer or label}: dev.jsonl is the test split, the other files train and validate.

    Rows without an answer (the hidden test labels) are passed over, and so is every training row that shares its question,
    or the beginning or end of its passage, with a row of dev.jsonl: the same paragraph appears cut differently, with and
    without its title.
    """
    by_name = {path.name: path for path in files}
    if "dev.jsonl" not in by_name:
        raise ColpipeError(f"{files[0].parent if files else 'boolq'}: dev.jsonl is missing; it is the test split")
    tested = set()
    for name in ["dev.jsonl", *sorted(set(by_name) - {"dev.jsonl"})]:
        for number, row in json_lines(by_name[name], ("question", "passage")):
            given = row.get("answer", row.get("label"))
            if given is None:
                continue
            answer = {"true": "yes", "false": "no"}.get(str(given).lower())
            if answer is None:
                raise ColpipeError(f"{by_name[name]}:{number}: answer {given!r} is neither true nor false")
            passage = row["passage"].split(" -- ", 1)[-1].strip()  # some files put "<title> -- " before it
            words, question = _plain(passage), _plain(row["question"])
            marks = {question, words[:MARK], words[-MARK:]}
            record = {
                "id": f"{name}:{number}",
                "group": words[:MARK],
                "kind": "boolq",
                "instruction": f"{row['question'].strip().rstrip('?').capitalize()}? Answer yes or no.",
                "input": passage,
                "output": answer,
                "choices": ["yes", "no"],
            }
            if name == "dev.jsonl":
                tested |= marks
                yield {**record, "split": "test"}
            elif not marks & tested:
                yield {**record, "split": split_of(record["group"], 0.05, 0)}


MARK = 60  # characters of a passage's beginning and end that tell it from others


def _plain(text: str) -> str:
    """Letters and digits only, lower case."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def alpaca(files: list[Path]) -> Iterator[Record]:
    """JSON lines of {instruction, input, output}, as Dolly and Alpaca have them."""
    for path in files:
        for number, row in json_lines(path, ("instruction", "output")):
            group = f"{row['instruction']}\n{row.get('input') or ''}"
            yield {
                "id": f"{path.name}:{number}",
                "group": group,
                "kind": "instruction",
                "instruction": row["instruction"],
                "input": row.get("input") or "",
                "output": row["output"],
                **({"choices": row["choices"]} if row.get("choices") else {}),
            }


def text(files: list[Path]) -> Iterator[Record]:
    """Documents: JSON lines of {text}, or .txt files with blank lines between documents."""
    for path in files:
        if path.suffix == ".txt":
            documents = enumerate(filter(str.strip, path.read_text(encoding="utf-8").split("\n\n")), 1)
        else:
            documents = ((number, row["text"]) for number, row in json_lines(path, ("text",)))
        for number, document in documents:
            name = f"{path.name}:{number}"
            yield {"id": name, "group": name, "text": document.strip()}


READERS: dict[str, Callable[[list[Path]], Iterator[Record]]] = {
    "wikipedia-leads": wikipedia_leads,
    "boolq": boolq,
    "alpaca": alpaca,
    "text": text,
}
