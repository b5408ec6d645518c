"""Documents: rows of {text} (OpenWebText, OpenWebText-100K, …), or .txt files with blank lines between documents."""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import content_files


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"text": str}):
        yield {"id": place.id, "group": place.id, "text": row["text"].strip()}
    for path in (path for path in content_files(folder) if path.suffix == ".txt"):
        try:
            for number, document in enumerate(_paragraph_groups(path), 1):
                yield {"id": f"{path.name}:{number}", "group": f"{path.name}:{number}", "text": document}
        except UnicodeDecodeError as error:
            raise ColpipeError(f"{path}: is not UTF-8 ({error.reason}); convert it first") from None


def _paragraph_groups(path: Path) -> Iterator[str]:
    """Lines up to the next blank one, joined; the file is never held as a whole."""
    lines: list[str] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                lines.append(line)
            elif lines:
                yield "".join(lines).strip()
                lines = []
    if lines:
        yield "".join(lines).strip()
