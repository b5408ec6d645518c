"""Staged files → records that stages understand, one module of `colpipe.data.readers` per data set.

A reader is a module with a function `records(folder)`. It takes the staged folder and yields records:

    {"id": …, "group": …, "text": …}                                               a document
    {"id": …, "group": …, "kind": …, "instruction": …, "input": …, "output": …}    an instruction

and where there are any

    split        where the files bring their own
    choices      the allowed answers of a multiple-choice row; `output` is one of them
    references   several right answers; `output` is the first
    likelihood   {contexts, continuations}, a pair for each of the choices: what lm-eval's task of that name compares
    left_out     why the row is not used (its label is hidden, …), with its `place` and nothing else; it is counted

`group` is what must not be shared between splits (a title, a passage). The name of a module is that of its reader, with _
for -; a new one is added without touching the others, and reruns nothing but its own data sets.
"""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from colpipe.config.parts import Dataset, reader_module
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import content_files

Record = dict


def read(dataset: Dataset, folder: Path) -> Iterator[Record]:
    """All records of a staged data set, each with its split.

    Raises:
        ColpipeError: a row is not what the reader expects (file and line are named), or there is none.
    """
    found = False
    for record in import_module(reader_module(dataset.reader)).records(folder):
        found = True
        if "left_out" not in record and "split" not in record:
            record["split"] = split_of(record["group"], dataset.validation, dataset.test)
        yield record
    if not found:
        names = [path.relative_to(folder).as_posix() for path in content_files(folder)]
        raise ColpipeError(f"{folder}: the {dataset.reader} reader found no rows in {names}")


def split_of(group: str, validation: float, test: float) -> str:
    """Split of a group by the hash of its name: the same in every data set that uses it, whatever else is in there."""
    position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
