"""XSum (EdinburghNLP/xsum): {id, document, summary}; or its raw articles, a file each, as first released.

Raw articles are ….summary, with parts after [SN]TITLE[SN], [SN]FIRST-SENTENCE[SN] and [SN]RESTBODY[SN], or ….data, with
parts after [XSUM]INTRODUCTION[XSUM] and [XSUM]RESTBODY[XSUM], where lines that invite to share the page are taken away, as
the hub does. Files bring their splits, and …SPLIT….json lists the ids of the raw ones'. The prompt is the paper's for XLSum
(Appendix C.1), without a title where there is none.
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePath

from colpipe.data.files import Place, check, require_whole, rows_of, split_in_name, tables
from colpipe.data.formats import TABLES, format_of, json_value, open_text, read_errors
from colpipe.data.readers.xlsum import summarise
from colpipe.errors import ColpipeError

LISTS = "*-SPLIT-*.json"
RAW = (".summary", ".data")
FORMATS = (*TABLES, *RAW)
KNOWN = (LISTS,)
PART = re.compile(r"\[(?:SN|XSUM)\](.*?)\[(?:SN|XSUM)\]")
SUMMARIES = ("FIRST-SENTENCE", "INTRODUCTION")
SHARING = {"Share this with", "Email", "Facebook", "Messenger", "Twitter", "Pinterest", "WhatsApp", "LinkedIn"}
SHARING |= {"Copy this link", "These are external links and will open in a new window"}


def records(folder: Path) -> Iterator[dict]:
    lists = [name for name in tables(folder) if fnmatch(PurePath(name).name, LISTS)]
    names = [name for name in tables(folder) if name not in lists]
    for place, row in rows_of(folder, {"id": str, "document": str, "summary": str}, names):
        yield _record(place, row["id"], split_in_name(place.name), None, row["document"], row["summary"])
    listed = {each: split for name in lists for each, split in _split_of_ids(folder / name).items()}
    raw = tables(folder, RAW)
    if len({format_of(name)[0] for name in raw}) > 1:
        raise ColpipeError(f"{folder}: has raw articles of both kinds ({', '.join(RAW)}); name one under `files`")
    for name in raw:
        place, title = Place(folder, name, 1), PurePath(name).name.split(".")[0]
        if lists and title not in listed:
            yield {"left_out": "in no split", "place": place}
        else:
            yield _record(place, title, listed.get(title), *_parts(folder / name))


def _record(place: Place, name: str, split: str | None, title: str | None, article: str, summary: str) -> dict:
    return {
        "place": place,
        "id": name,
        "group": name,
        **({"split": "validation" if split == "dev" else split} if split else {}),
        "kind": "summary",
        "instruction": summarise(title),
        "input": article,
        "output": summary,
    }


def _split_of_ids(path: Path) -> Mapping[str, str]:
    splits = json_value(path)
    check(path, splits, dict.fromkeys(("train", "validation", "test"), list[str]))
    return {each: split for split in ("train", "validation", "test") for each in splits[split]}


def _parts(path: Path) -> tuple[str | None, str, str]:
    """(title, if there is one, article, summary) of a raw article."""
    with read_errors(path), open_text(path) as file:
        content = file.read()
    require_whole(path, "article", content)
    pieces = PART.split(content)
    parts = {name: text.strip() for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    summary = next((parts[name] for name in SUMMARIES if name in parts), None)
    if summary is None or "RESTBODY" not in parts:
        raise ColpipeError(f"{path}: has no RESTBODY and {' or '.join(SUMMARIES)}; it has {sorted(parts)}")
    lines = [line for line in parts["RESTBODY"].splitlines() if line.strip() not in SHARING]
    return parts.get("TITLE"), "\n".join(lines), summary
