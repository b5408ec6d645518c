"""Rows of one file: JSON lines, JSON, CSV, TSV, parquet, arrow, each as it is or compressed."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePath
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from colpipe.errors import ColpipeError, first_line, not_utf8

Row = dict
Fields = Mapping[str, Any]
"""name → type, or types, of a field: `str`, `int`, `bool`, `dict`, `list`, `list[str]`"""
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")  # how a file of UTF-16 or UTF-32 begins
DUMP_PART = re.compile(r"(?<=^\.xml)-p\d+p\d+.*")
HEAD = 1024  # bytes of a text file that are looked at before it is read
PARQUET_ROWS = 1000  # held in memory at a time


def _open_zst(path: Path) -> IO[bytes]:
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


COMPRESSED: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": gzip.open,  # type: ignore[dict-item]
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}


def format_of(name: str) -> tuple[str, str]:
    """(`.jsonl`, `.gz`) of `rows.JSONL.gz`: a file's format, and how it is compressed, if it is.

    Parts of a dump of Wikipedia are called `….xml-p1p41242.bz2`.
    """
    suffixes = PurePath(name.lower()).suffixes
    packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    return DUMP_PART.sub("", suffixes[-1]) if suffixes else "", packed


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Errors of reading a file as a `ColpipeError` that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        unpacked = path.with_suffix("") if format_of(path.name)[1] else path
        raise ColpipeError(f"{path}: {not_utf8(unpacked, error, _line_not_utf8(path))}") from None
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ColpipeError(f"{path}: cannot be read ({first_line(error)}); is it cut off? fetch it again") from None


def _line_not_utf8(path: Path) -> int:
    """Number of the first line that is not; an error of reading knows its place in a buffer only."""
    with _open_bytes(path) as file:
        return next((number for number, line in enumerate(file, 1) if not _is_utf8(line)), 1)


def _is_utf8(line: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return bool(line.decode("utf-8"))
    return False


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A text file in UTF-8, with or without a byte order mark, compressed or not.

    Raises:
        ColpipeError: it is UTF-16 or holds NUL bytes, as no text does.
    """
    with _open_bytes(path) as file:
        head = file.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]
        if head.startswith(UTF_16):
            raise ColpipeError(f"{path}: is not UTF-8 but UTF-16 or UTF-32; convert it first (iconv -t UTF-8)")
        if b"\0" in head:
            raise ColpipeError(f"{path}: holds NUL bytes: it is not UTF-8, or no text; convert it first")
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
            yield text


def json_value(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ColpipeError: it is not JSON, or not UTF-8.
    """
    with read_errors(path), open_text(path) as file:
        try:
            return json.loads(file.read(), object_pairs_hook=_object)
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            lines = "; name it .jsonl if it holds a row a line" if str(error).startswith("Extra data") else ""
            raise ColpipeError(f"{path}: is not JSON: {error}{lines}") from None


def rows_in(
    path: Path, fields: Fields, optional: Fields | None = None, columns: Sequence[str] = ()
) -> Iterator[tuple[int, Any]]:
    """Every row of a file with its number: a line's, or a row's, from 1.

    Args:
        fields: types of fields, all of which a CSV's header has; where text is not among them, its text is read as JSON.
        optional: the same of fields that it may lack.
        columns: names of the columns of CSV files that have as many and no header; the first is in every header.

    Raises:
        ColpipeError: it cannot be read.
    """
    kind, packed = format_of(path.name)
    with read_errors(path):
        match kind:
            case ".jsonl" | ".ndjson":
                yield from _json_lines(path)
            case ".json":
                value = json_value(path)
                if not isinstance(value, list):
                    raise ColpipeError(f"{path}: is {shown(value)}; expected a list of rows, or a .jsonl file")
                yield from enumerate(value, 1)
            case ".csv" | ".tsv":
                yield from _separated(path, SEPARATORS[kind], fields, optional or {}, columns)
            case ".parquet":
                with _open_table(path, packed) as source, pyarrow.parquet.ParquetFile(source) as file:
                    _require_distinct(path, file.schema_arrow.names)
                    yield from _batches(file.iter_batches(PARQUET_ROWS))
            case ".arrow":
                with _open_table(path, packed) as source:
                    yield from _arrow(path, source)


def shown(value: object) -> str:
    """A value and its type, for errors."""
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def _open_bytes(path: Path) -> IO[bytes]:
    _, packed = format_of(path.name)
    return COMPRESSED[packed](path) if packed else open(path, "rb")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    value = json.loads(line, object_pairs_hook=_object)
                except (ValueError, RecursionError) as error:
                    raise ColpipeError(f"{path}:{number}: is not JSON: {error}") from None
                yield number, value


def _object(pairs: list[tuple[str, Any]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice in one row")
    return row


def _separated(
    path: Path, separator: str, fields: Fields, optional: Fields, columns: Sequence[str]
) -> Iterator[tuple[int, Row]]:
    kinds = {**optional, **fields}
    csv.field_size_limit(sys.maxsize)  # a field may hold a document
    with open_text(path, newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            header = next(reader, [])
            rows: Iterable[list[str]] = reader
            if columns and len(header) == len(columns) and columns[0] not in header:
                header, rows = list(columns), chain([header], reader)
            _require_distinct(path, header)
            if len(header) == 1 and any(other in header[0] for other in ",;|\t" if other != separator):
                raise ColpipeError(
                    f"{path}:1: columns are separated by {separator!r} here; the header is {header[0]!r}"
                )
            if header and (missing := [name for name in fields if name not in header]):
                raise ColpipeError(f"{path}:1: the header has no field {missing[0]!r}; it has {header}")
            for values in rows:
                if values and len(values) != len(header):
                    raise ColpipeError(f"{path}:{reader.line_num}: has another number of values than the header")
                if values:
                    pairs = zip(header, values, strict=True)
                    yield reader.line_num, {name: _typed(text, kinds.get(name, str)) for name, text in pairs}
        except csv.Error as error:
            raise ColpipeError(f"{path}:{reader.line_num}: is not CSV: {error}") from None


def _typed(text: str, kind: Any) -> Any:
    """Text where text is wanted, else what it says in JSON; `check` names what is neither."""
    if kind is str or (isinstance(kind, tuple) and str in kind):
        return text
    try:
        return json.loads(text.lower() if kind is bool else text) if text else None
    except ValueError:
        return text


def _open_table(path: Path, packed: str) -> pyarrow.NativeFile:
    if not packed:
        return pyarrow.memory_map(str(path))
    with _open_bytes(path) as file:
        return pyarrow.BufferReader(file.read())


def _arrow(path: Path, source: pyarrow.NativeFile) -> Iterator[tuple[int, Row]]:
    """Both kinds of arrow file: streams, which `datasets` saves, and those that can be read at any place."""
    begins = source.read(6)
    source.seek(0)
    if begins == b"ARROW1":
        file = pyarrow.ipc.open_file(source)
        batches: Iterable[pyarrow.RecordBatch] = map(file.get_batch, range(file.num_record_batches))
    else:
        file = batches = pyarrow.ipc.open_stream(source)
    _require_distinct(path, file.schema.names)
    yield from _batches(batches)


def _batches(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ColpipeError(f"{path}:1: the column {twice[0]!r} is there twice")
