"""Wikipedia articles from MediaWiki's XML export (`enwiki-…-pages-articles1.xml-p1p41242.bz2`): documents of prose.

Paragraphs that end as a sentence does stay, one a line. Headings, lists, tables, templates, references, formulas, pictures
and all other markup are taken away. Left out are pages outside the article namespace, redirects, articles without a
paragraph, and titles that were there before. Split by hash of the title.
"""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from colpipe.data.files import Place, require_whole, tables
from colpipe.data.formats import open_text, read_errors
from colpipe.errors import ColpipeError

FORMATS = (".xml",)
HIDDEN = {"-2": "Media", "6": "File|Image", "14": "Category"}  # namespaces whose links show no text
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NO_PROSE = "ref|math|chem|gallery|timeline|imagemap|score|code|source|syntaxhighlight|pre|table|hiero|graph|mapframe"
ELEMENT = re.compile(rf"<({NO_PROSE})\b[^<>]*?(?:/>|>.*?</\1\s*>)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|__[A-Z]+__|'{2,}")
TEMPLATE = re.compile(r"\{\{((?:[^{}]|\{(?!\{)|\}(?!\}))*)\}\}")  # one with no other in it
TABLE = re.compile(r"\{\|(?:[^{|]|\{(?!\|)|\|(?!\}))*\|\}")
LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^\s\]]*\s*([^\]]*)\]")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*:")
LAST = re.compile(
    r"(lang|nowrap|nobr|transl|small|unicode|script|abbr)\b", re.IGNORECASE
)  # templates that show their text
DASH = re.compile(r"(spaced )?[ne]n?dash|snd", re.IGNORECASE)
REST = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}")  # markup that is not closed
SENTENCE = re.compile(r"[.!?…。][\"'”’)\]]*$")
GAPS = (  # what is left around what was taken away
    (re.compile(r"([(\[])[\s,;:]+"), r"\1"),
    (re.compile(r"[\s,;:]+([)\]])"), r"\1"),
    (re.compile(r"\s*(\(\)|\[\])"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r" ([,.;:])(?=\s|$)"), r"\1"),
)


def records(folder: Path) -> Iterator[dict]:
    titles: set[str] = set()
    for name in tables(folder, FORMATS):
        path = folder / name
        with read_errors(path), open_text(path) as file:
            for title, text, problem, hidden in _pages(path, file):
                place = Place(folder, name, title)
                problem = problem or ("a title that was there before" if title in titles else "")
                titles |= set() if problem else {title}
                document = "" if problem else prose(text, hidden)
                if not document:
                    yield {"left_out": problem or "no paragraph", "place": place}
                    continue
                require_whole(place, "text", document)
                yield {"place": place, "id": title, "group": title, "text": document}


def _pages(path: Path, file: IO[str]) -> Iterator[tuple[str, str, str, re.Pattern]]:
    """(title, wikitext, why it is no article, links that show no text) of every page."""
    hidden, root = dict(HIDDEN), None
    try:
        for event, element in ElementTree.iterparse(file, ("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if root is None:
                root = element
                if tag != "mediawiki":
                    raise ColpipeError(f"{path}: is <{tag}>, no export of MediaWiki (<mediawiki>)")
            elif event == "end" and tag == "namespace" and element.get("key") in HIDDEN and element.text:
                hidden[element.get("key", "")] += f"|{re.escape(element.text)}"
            elif event == "end" and tag == "page":
                found = {each.tag.rpartition("}")[2]: each for each in element.iter()}
                text = "".join(found["text"].itertext()) if "text" in found else ""
                if "title" not in found:
                    raise ColpipeError(f"{path}: has a <page> without <title>, which no export of MediaWiki has")
                problem = "no article" if "ns" in found and found["ns"].text != "0" else ""
                if "redirect" in found or text.lstrip().lower().startswith("#redirect"):
                    problem = problem or "a redirect"
                shows_nothing = re.compile(rf"\s*({'|'.join(hidden.values())})\s*:", re.IGNORECASE)
                yield found["title"].text or "", text, problem, shows_nothing
                root.clear()  # nothing of what was read stays in memory
    except ElementTree.ParseError as error:
        raise ColpipeError(f"{path}: is no XML: {error}; is it cut off? fetch it again") from None


def prose(wikitext: str, hidden: re.Pattern) -> str:
    """The paragraphs of an article, one a line.

    Args:
        hidden: matches the targets of links that show no text.
    """

    def link(match: re.Match) -> str:
        target, bar, shown = match[1].partition("|")
        if hidden.match(target) or (LANGUAGE.match(target) and not bar):
            return ""
        return shown.rpartition("|")[2] if bar else target.removeprefix(":")

    text = _innermost_first(TEMPLATE, _template, COMMENT.sub("", wikitext))
    text = _innermost_first(TABLE, lambda _: "", ELEMENT.sub("", text))
    text = EXTERNAL.sub(r"\1", _innermost_first(LINK, link, text))
    lines = (_closed_up(unescape(TAG.sub("", line))) for line in text.splitlines() if line[:1] not in set("*#:;=|! "))
    return "\n".join(line for line in lines if SENTENCE.search(line) and not REST.search(line))


def _innermost_first(pattern: re.Pattern, replace, text: str) -> str:
    """Replace markup that may lie in markup of its kind."""
    found = 1
    while found:
        text, found = pattern.subn(replace, text)
    return text


def _template(match: re.Match) -> str:
    """What a template shows within a sentence; of most that is nothing."""
    name, *values = [part.strip() for part in match[1].split("|")]
    values = [value for value in values if "=" not in value]
    if LAST.match(name) and values:
        return values[-1]
    if name.lower() in ("convert", "cvt") and len(values) > 1:
        return " ".join(values[:2])
    return " – " if DASH.fullmatch(name) else ""


def _closed_up(line: str) -> str:
    for pattern, instead in GAPS:
        line = pattern.sub(instead, line)
    return line.strip()
