"""The files of a data set: which of them hold rows, which are known to hold none, and their rows, checked."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any, NamedTuple, get_origin

from colpipe.data.formats import COMPRESSED, TABLES, Fields, Row, format_of, rows_in, shown
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import APART

SHOWN = 8  # names that a line names
# What `datasets` and Spark write beside their rows.
ABOUT_TABLES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
# What is published beside rows, and holds none.
ABOUT = re.compile(
    r"(readme|licen[sc]e|copying|notice|citation|changelog|contributing|authors)([.-][\w-]+)*?(\.(md|txt|rst|cff|bib|html))?"
    r"|_success|_(common_)?metadata|(md5|sha1|sha256)sums?(\.txt)?|checksums?\.txt|.*\.(md5|sha1|sha256|crc)"
    r"|thumbs\.db|desktop\.ini"
)
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "dev",
    "test": "test",
}


class Place(NamedTuple):
    """Where a row stands."""

    folder: Path
    name: str
    """of the file, relative to the folder"""
    number: int | str
    """line or row, from 1, or what a JSON document calls it"""

    def __str__(self) -> str:
        return f"{self.folder / self.name}:{'' if isinstance(self.number, int) else ' '}{self.number}"

    @property
    def id(self) -> str:
        """The row's name on every machine."""
        return f"{self.name}:{self.number}"


def files_in(folder: Path) -> tuple[list[str], list[str]]:
    """Relative names of a folder's files, subfolders' and linked ones' too, and of the hidden files and folders, which are
    never data. A folder that several links lead to is listed once.

    Raises:
        ColpipeError: a subfolder cannot be read, or a name is not UTF-8.
    """
    visible: list[str] = []
    hidden: list[str] = []
    _list(folder, PurePath(), visible, hidden, {os.path.realpath(folder)})
    return sorted(visible), sorted(hidden)


def _list(folder: Path, at: PurePath, visible: list[str], hidden: list[str], seen: set[str]) -> None:
    try:
        entries = sorted(os.scandir(folder / at), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise ColpipeError(f"{folder / at}: cannot be read: {error.strerror}") from None
    for entry in entries:
        name = at / entry.name
        _require_utf8(folder, name)
        if entry.name.startswith("."):
            hidden.append(name.as_posix())
        elif not entry.is_dir():
            visible.append(name.as_posix())
        elif (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            _list(folder, name, visible, hidden, seen)


def _require_utf8(folder: Path, name: PurePath) -> None:
    readable = os.fsencode(name).decode(errors="backslashreplace")
    if readable != str(name):
        raise ColpipeError(f"{folder}: the name of {readable} is not UTF-8; rename it")


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    left = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {left:,} more" if left > 0 else "")


def data_files(
    folder: Path, reader: str, formats: Sequence[str] = TABLES, known: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Relative names of the files that a reader reads, and of those that are known to hold no rows.

    Args:
        formats: that it reads, compressed or not.
        known: patterns of names that its data set comes with, and that hold no rows.

    Raises:
        ColpipeError: there is a file that it does not understand, or one is there compressed and as it is.
    """
    data, ignored, unknown = [], [], []
    for name in (name for name in files_in(folder)[0] if name not in APART):
        if not (folder / name).is_file():
            raise ColpipeError(f"{folder / name}: is no file, or a link to one that is gone")
        if _is_about(name) or any(fnmatch(PurePath(name).name, pattern) for pattern in known):
            ignored.append(name)
        elif format_of(name)[0] in formats:
            data.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise ColpipeError(
            f"{folder}: the {reader} reader does not read {', '.join(unknown[:5])}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''} (it reads {', '.join(formats)}, also with "
            f"{', '.join(COMPRESSED)}); name the files that are data under `files` of the source"
        )
    plain = {_unpacked(name): name for name in data}
    if twice := [name for name in data if plain[_unpacked(name)] != name]:
        raise ColpipeError(
            f"{folder}: {twice[0]} and {plain[_unpacked(twice[0])]} seem to be one file, once compressed; name one of them "
            "under `files` of the source"
        )
    return data, ignored


def tables(folder: Path, formats: Sequence[str] = TABLES) -> list[str]:
    """Relative names of the files in a staged folder that hold rows, in these formats."""
    names = (name for name in files_in(folder)[0] if name not in APART and not _is_about(name))
    return [name for name in names if format_of(name)[0] in formats]


def rows_of(
    folder: Path,
    fields: Fields,
    names: Iterable[str] | None = None,
    optional: Fields | None = None,
    columns: Sequence[str] = (),
) -> Iterator[tuple[Place, Row]]:
    """Every row of the files that hold rows, and where it stands.

    Args:
        fields: name → type (or types) that every row must have.
        names: of the files to read; None is all.
        optional: the same of fields that a row may lack, or have null in.
        columns: names of the columns of CSV files without a header.

    Raises:
        ColpipeError: a file cannot be read, or a row lacks a field or has another type in one.
    """
    optional = optional or {}
    for name in tables(folder) if names is None else names:
        for number, row in rows_in(folder / name, fields, optional, columns):
            place = Place(folder, name, number)
            check(place, row, fields, optional)
            yield place, row


def check(place: object, row: object, fields: Fields, optional: Fields | None = None) -> None:
    """See that a row has these fields, of these types, and that their text can be written.

    Raises:
        ColpipeError: it lacks one, or has another type in it, or half a character or NUL; the place is named.
    """
    if not isinstance(row, dict):
        raise ColpipeError(f"{place}: is {shown(row)}, not a row with fields {', '.join(fields)}")
    for name, kind in fields.items():
        if name not in row:
            raise ColpipeError(f"{place}: has no field {name!r}; it has {sorted(row)}")
        _check_field(place, name, row[name], kind)
    for name, kind in (optional or {}).items():
        if row.get(name) is not None:
            _check_field(place, name, row[name], kind)


def _check_field(place: object, name: str, value: object, kind: Any) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not any(_fits(value, each) for each in kinds):
        wanted = " or ".join(str(each) if get_origin(each) else each.__name__ for each in kinds)
        raise ColpipeError(f"{place}: field {name!r} is {shown(value)}; expected {wanted}")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            require_whole(place, name, text)


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(each, kind.__args__[0]) for each in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def require_whole(place: object, name: str, text: str) -> None:
    """See that a text has whole characters only, and no NUL: a JSON escape can leave half of one, or make one.

    Raises:
        ColpipeError: it has a lone surrogate, which cannot be written or tokenised, or a NUL character, which no text has.
    """
    if "\0" in text:
        raise ColpipeError(
            f"{place}: field {name!r} holds a NUL character (at {text.index(chr(0))}); mend or remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise ColpipeError(
            f"{place}: field {name!r} holds half a character ({half}, a lone surrogate, at {error.start}); mend or remove it"
        ) from None


def split_in_name(name: str) -> str | None:
    """`train`, `validation`, `dev` or `test`, as the file's name says, or a folder that it was published in."""
    for part in reversed(PurePath(name).parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def _is_about(name: str) -> bool:
    base = PurePath(name.lower()).name
    return base in ABOUT_TABLES or (format_of(base)[0] not in TABLES and bool(ABOUT.fullmatch(base)))


def _unpacked(name: str) -> str:
    """The name without the suffix of what compressed it."""
    return name[: len(name) - len(format_of(name)[1])]
