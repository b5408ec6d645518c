"""Documents: rows of {text} (OpenWebText, OpenWebText-100K, …), or .txt files with blank lines between documents.

Split by hash, whatever the files are called.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import Place, require_whole, rows_of, tables
from colpipe.data.formats import TABLES, open_text, read_errors

FORMATS = (*TABLES, ".txt")


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"text": str}):
        yield _document(place, row["text"].strip())
    for name in tables(folder, (".txt",)):
        with read_errors(folder / name):
            for number, text in enumerate(_paragraph_groups(folder / name), 1):
                place = Place(folder, name, number)
                require_whole(place, "text", text)
                yield _document(place, text)


def _document(place: Place, text: str) -> dict:
    return {"place": place, "id": place.id, "group": place.id, "text": text}


def _paragraph_groups(path: Path) -> Iterator[str]:
    """Lines up to the next blank one, joined; the file is never held as a whole."""
    lines: list[str] = []
    with open_text(path) as file:
        for line in file:
            if line.strip():
                lines.append(line)
            elif lines:
                yield "".join(lines).strip()
                lines = []
    if lines:
        yield "".join(lines).strip()
