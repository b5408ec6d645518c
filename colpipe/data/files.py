"""Rows of published files, in whatever format they come: JSON lines, JSON, parquet, CSV, what `datasets` saved."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from colpipe.errors import ColpipeError, first_line
from colpipe.jobs.artifacts import content_files

Row = dict
Fields = Mapping[str, type | tuple[type, ...]]
FORMATS = (".jsonl", ".json", ".parquet", ".csv", ".arrow")
# What `datasets` writes beside its rows.
ABOUT = {"dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json"}
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "dev",
    "test": "test",
}
PARQUET_ROWS = 1000  # held in memory at a time


class Place(NamedTuple):
    """Where a row stands."""

    folder: Path
    name: str
    """of the file, relative to the folder"""
    number: int
    """line or row, from 1"""

    def __str__(self) -> str:
        return f"{self.folder / self.name}:{self.number}"

    @property
    def id(self) -> str:
        """The row's name on every machine."""
        return f"{self.name}:{self.number}"


def tables(folder: Path) -> list[str]:
    """Relative names of the files in a staged folder that hold rows."""
    names = (path.relative_to(folder) for path in content_files(folder))
    return [name.as_posix() for name in names if name.suffix in FORMATS and name.name not in ABOUT]


def rows_of(folder: Path, fields: Fields, names: Iterable[str] | None = None) -> Iterator[tuple[Place, Row]]:
    """Every row of the files that hold rows, and where it stands.

    Args:
        fields: name → type (or types) that every row must have.
        names: of the files to read; None is all.

    Raises:
        ColpipeError: a file cannot be read, or a row lacks a field or has another type in it.
    """
    for name in tables(folder) if names is None else names:
        for number, row in _read(folder / name, fields):
            place = Place(folder, name, number)
            check(place, row, fields)
            yield place, row


def check(place: object, row: object, fields: Fields) -> None:
    """See that a row has these fields.

    Raises:
        ColpipeError: it lacks one, or has another type in it; the place is named.
    """
    if not isinstance(row, dict):
        raise ColpipeError(f"{place}: is {_shown(row)}, not a row with fields {', '.join(fields)}")
    for name, kind in fields.items():
        if name not in row:
            raise ColpipeError(f"{place}: has no field {name!r}; it has {sorted(row)}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(row[name], kinds) or (isinstance(row[name], bool) and bool not in kinds):
            wanted = " or ".join(each.__name__ for each in kinds)
            raise ColpipeError(f"{place}: field {name!r} is {_shown(row[name])}; expected {wanted}")


def json_value(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ColpipeError: it is not JSON, or not UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except ValueError as error:
        raise ColpipeError(f"{path}: is not JSON: {error}") from None


def split_in_name(name: str) -> str | None:
    """`train`, `validation`, `dev` or `test`, as the file's name says, or a folder that it was published in."""
    for part in reversed(PurePath(name).parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def _read(path: Path, fields: Fields) -> Iterator[tuple[int, Row]]:
    try:
        match path.suffix:
            case ".jsonl":
                yield from _json_lines(path)
            case ".json":
                value = json_value(path)
                if not isinstance(value, list):
                    raise ColpipeError(f"{path}: is {_shown(value)}; expected a list of rows, or a .jsonl file")
                yield from enumerate(value, 1)
            case ".csv":
                yield from _csv(path, fields)
            case ".parquet":
                yield from _parquet(path)
            case ".arrow":
                with pyarrow.memory_map(str(path)) as source:
                    yield from _batches(pyarrow.ipc.open_stream(source))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (pyarrow.ArrowException, OSError) as error:
        raise ColpipeError(f"{path}: cannot be read ({first_line(error)}); is it cut off? fetch it again") from None


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise ColpipeError(f"{path}:{number}: is not JSON: {error}") from None


def _csv(path: Path, fields: Fields) -> Iterator[tuple[int, Row]]:
    """Everything in a CSV file is text; where another type is expected, the text is read as JSON."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ColpipeError(f"{path}:{reader.line_num}: has another number of values than the header")
                for name in row.keys() & fields.keys():
                    if fields[name] is not str:
                        try:
                            row[name] = json.loads(row[name].lower() if fields[name] is bool else row[name])
                        except ValueError:
                            continue  # `check` names it
                yield reader.line_num, row
        except csv.Error as error:
            raise ColpipeError(f"{path}:{reader.line_num}: is not CSV: {error}") from None


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _batches(file.iter_batches(PARQUET_ROWS))


def _batches(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _not_utf8(path: Path, error: UnicodeDecodeError) -> ColpipeError:
    return ColpipeError(f"{path}: is not UTF-8 ({error.reason} 0x{error.object[error.start]:02x}); convert it first")


def _shown(value: object) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"
