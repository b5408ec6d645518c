"""Staged files → records that stages understand, one module of `colpipe.data.readers` per data set.

A reader is a module with a function `records(folder)`. It takes the staged folder and yields records:

    {"place": …, "id": …, "group": …, "text": …}                                               a document
    {"place": …, "id": …, "group": …, "kind": …, "instruction": …, "input": …, "output": …}    an instruction

and where there are any

    split        where the files bring their own
    shares       (validation, test) of groups that are split by hash, where they are not the data set's
    choices      the allowed answers of a multiple-choice row; `output` is one of them
    references   several right answers; `output` is the first
    likelihood   {contexts, continuations}, a pair for each of the choices: what lm-eval's task of that name compares; of
                 a row without choices one pair, whose continuation is right
    left_out     why the row is not used (its label is hidden, …), with its `place` and nothing else; it is counted

`place` says where the row stands (`colpipe.data.files.Place`). `group` is what must not be shared between splits (a title, a
passage). `FORMATS` of a reader are the formats that it reads, where they are not those of tables; `KNOWN` are patterns of
names that its data set comes with and that hold no rows. The name of a module is that of its reader, with _ for -; a new one
is added without touching the others, and reruns nothing but its own data sets.
"""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from colpipe.config.parts import Dataset, reader_module
from colpipe.data.choices import equal_choices
from colpipe.data.files import Place, data_files, files_in
from colpipe.data.formats import TABLES
from colpipe.errors import ColpipeError

Record = dict


def read(dataset: Dataset, folder: Path) -> Iterator[Record]:
    """All records of a staged data set, each with its split, and with `by_hash`: whether that is by hash of its group.

    Raises:
        ColpipeError: there is a file or a row that the reader does not expect (file and line are named), or no row at all.
    """
    read_files(dataset, folder)
    firsts: dict[tuple[str, bool], Place] = {}
    found = False
    for record in import_module(reader_module(dataset.reader)).records(folder):
        found = True
        if "left_out" not in record:
            record["by_hash"] = "split" not in record
            validation, test = record.pop("shares", (dataset.validation, dataset.test))
            if record["by_hash"]:
                record["split"] = split_of(record["group"], validation, test)
            if "instruction" in record:
                _check_choices(record, firsts)
        yield record
    if not found:
        raise ColpipeError(f"{folder}: the {dataset.reader} reader found no rows in {files_in(folder)[0]}")


def read_files(dataset: Dataset, folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files of a staged data set that its reader reads, and of those that hold no rows.

    Raises:
        ColpipeError: there is one that it does not understand.
    """
    reader = import_module(reader_module(dataset.reader))
    return data_files(folder, dataset.reader, getattr(reader, "FORMATS", TABLES), getattr(reader, "KNOWN", ()))


def _check_choices(record: Record, firsts: dict[tuple[str, bool], Place]) -> None:
    """See that the choices of a row can be told apart, that one of them is right, and that all rows of a kind have some.

    Args:
        firsts: (kind, whether it has choices) → place of the first such row, filled here.
    """
    place, choices = record["place"], record.get("choices")
    firsts.setdefault((record["kind"], choices is not None), place)
    if other := firsts.get((record["kind"], choices is None)):
        has, lacks = (other, place) if choices is None else (place, other)
        raise ColpipeError(f"{lacks}: has no choices, and {has} has; give all rows some, or none")
    if choices is None:
        return
    if len(choices) < 2:
        raise ColpipeError(f"{place}: choices are {choices}; give at least two")
    if equal := equal_choices(choices):
        raise ColpipeError(
            f"{place}: the choices {' and '.join(map(repr, equal))} cannot be told apart (case, blanks and punctuation do "
            "not count); change one of them"
        )
    if record["output"] not in choices:
        raise ColpipeError(
            f"{place}: output {record['output']!r} is none of its choices {choices}; write it as the choice"
        )
    if len(record.get("references", [])) > 1:
        raise ColpipeError(f"{place}: has choices and {len(record['references'])} outputs; one of the choices is right")


def split_of(group: str, validation: float, test: float) -> str:
    """Split of a group by the hash of its name: the same in every data set that uses it, whatever else is in there."""
    position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
