"""Wikipedia's XML export: paragraphs of prose, by hand; what is no article is left out and counted."""

import bz2
import json
from collections import Counter
from html import escape

import pytest

from colpipe.config.needs import JobRuntime
from colpipe.config.parts import Dataset
from colpipe.data.formats import format_of
from colpipe.data.readers.wikipedia_articles import records
from colpipe.errors import ColpipeError
from colpipe.stages import prepare_corpus
from tests.conftest import make_tokenizer, open_job

SITE = (
    '<siteinfo><namespaces><namespace key="0" /><namespace key="6">Datei</namespace>'
    '<namespace key="14">Kategorie</namespace></namespaces></siteinfo>'
)


def page(title: str, text: str, ns: int = 0, redirect: str = "") -> str:
    target = f'<redirect title="{redirect}" />' if redirect else ""
    return f"<page><title>{title}</title><ns>{ns}</ns>{target}<revision><text>{escape(text)}</text></revision></page>"


def write(folder, *pages: str, name: str = "enwiki-20240101-pages-articles1.xml-p1p41242.bz2") -> None:
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{SITE}{"".join(pages)}</mediawiki>'
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(bz2.compress(xml.encode()) if name.endswith(".bz2") else xml.encode())


def text_of(tmp_path, wikitext: str) -> str:
    write(tmp_path / "dump", page("A", wikitext))
    [record] = records(tmp_path / "dump")
    return record.get("text", record.get("left_out"))


@pytest.mark.parametrize(
    ("wikitext", "prose"),
    [
        ("'''Bern''' is ''the'' [[capital city|capital]] of [[Switzerland]].", "Bern is the capital of Switzerland."),
        ("It lies high.<ref name=a>[[X]]. {{cite|a={{b}}}}</ref><ref name=a/> It is old.", "It lies high. It is old."),
        ("{{Infobox\n| a = {{nested|x}}\n| b = 1\n}}\nOne line.\n\nAnother one!", "One line.\nAnother one!"),
        ("{| class=x\n|-\n| A cell.\n{|\n| Inner.\n|}\n|}\nText after it.", "Text after it."),
        ("[[File:a.jpg|thumb|A [[river]] in spring.]]Pictures are gone.", "Pictures are gone."),
        ("[[Datei:a.jpg|mini|Ein Bild.]][[Kategorie:Ort]]Namespaces are the site's.", "Namespaces are the site's."),
        ("See [http://x.org/a?b=c the page] and [https://y.org].[[de:Bern]]", "See the page and."),
        ("It is {{convert|5|km|mi}} long ({{IPA|x}}; from {{lang|la|via}}).", "It is 5 km long (from via)."),
        ("A word{{spaced ndash}}a dash ({{IPA|x}}).", "A word – a dash."),
        ("== Heading ==\n* A list item.\n: Indented.\n; Term.\n# First.\nNo sentence\nThe end.", "The end."),
        ("A&nbsp;B <br /> C.<br />D <sup>2</sup>.<!-- not\nseen -->", "A B C.D 2."),
        ("He said: \"It works.\"\n(Nobody heard.)", 'He said: "It works."\n(Nobody heard.)'),
        ("It is not {{closed.\nThis one is.", "This one is."),
        ("<gallery>\nFile:a.jpg|One.\n</gallery>\n<math>a + b.</math>\n* none", "no paragraph"),
    ],
)  # fmt: skip
def test_prose(tmp_path, wikitext, prose):
    assert text_of(tmp_path, wikitext) == prose


def test_what_is_no_article_is_left_out_and_titles_are_groups(tmp_path):
    write(
        tmp_path / "dump",
        page("Bern", "A town."),
        page("Berne", "#REDIRECT [[Bern]]", redirect="Bern"),
        page("Berna", "#redirect [[Bern]]"),
        page("Talk:Bern", "A talk.", ns=1),
        page("List", "* Bern"),
    )
    write(tmp_path / "dump", page("Bern", "It is there again."), page("Thun", "Another."), name="part2.xml")
    found = list(records(tmp_path / "dump"))
    assert [(each["id"], each["group"], each["text"]) for each in found if "text" in each] == [
        ("Bern", "Bern", "A town."),
        ("Thun", "Thun", "Another."),
    ]
    assert [(str(each["place"].number), each["left_out"]) for each in found if "left_out" in each] == [
        ("Berne", "a redirect"),
        ("Berna", "a redirect"),
        ("Talk:Bern", "no article"),
        ("List", "no paragraph"),
        ("Bern", "a title that was there before"),
    ]


def test_pages_of_old_dumps_have_no_namespace(tmp_path):
    write(tmp_path / "dump", page("Bern", "A town.").replace("<ns>0</ns>", ""))
    assert [each["text"] for each in records(tmp_path / "dump")] == ["A town."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html><page /></html>", "is <html>, no export of MediaWiki"),
        ("<mediawiki><page><ns>0</ns></page></mediawiki>", "has a <page> without <title>"),
        ("<mediawiki><page>", "is no XML: no element found"),
        ("no XML at all", "is no XML: syntax error"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "wiki.xml").write_text(content)
    with pytest.raises(ColpipeError, match=rf"wiki\.xml: {message}"):
        list(records(tmp_path))


def test_parts_of_dumps_are_xml():
    assert format_of("enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2") == (".xml", ".bz2")
    assert format_of("enwiki-20240101-pages-articles27.xml-p1p2") == (".xml", "")
    assert format_of("rows.xml-part.bz2") == (".xml-part", ".bz2")


def test_a_corpus_counts_what_the_reader_leaves_out(tmp_path, capfd):
    pages = [page(f"Town {number}", f"Town {number} is a town.") for number in range(60)]
    write(
        tmp_path / "dump",
        *pages,
        page("Talk:A", "A.", ns=1),
        page("B", "#REDIRECT [[A]]"),
        page("C", "#REDIRECT [[A]]"),
    )
    make_tokenizer(["Town is a town."], 300).save_pretrained(tmp_path / "tokenizer")
    settings = Dataset.model_validate(
        {"source": {"path": str(tmp_path)}, "reader": "wikipedia-articles", "validation": 0.2, "test": 0.2}
    )
    parents = {"dataset": tmp_path / "dump", "tokenizer": tmp_path / "tokenizer"}
    job = open_job("prepare_corpus", tmp_path / "out", tmp_path / "work", settings, JobRuntime(), parents, 0)
    prepare_corpus.main(job)
    job.close()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["left_out"] == {"a redirect": 2, "no article": 1}
    assert Counter({split: count["documents"] for split, count in manifest["counts"].items()}).total() == 60
    assert "2 rows left out: a redirect" in capfd.readouterr().err
