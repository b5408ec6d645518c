"""Lead sections of Wikipedia articles, some with a one-line description: {title: {extract, description}} in JSON.

Kinds: `describe` (title → description), `lead` (title → lead section), `summarise` (title and lead section → description,
with the paper's summarisation prompt).
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import Place, check, require_whole, tables
from colpipe.data.formats import json_value
from colpipe.data.readers.xlsum import summarise

FORMATS = (".json",)


def records(folder: Path) -> Iterator[dict]:
    for name in tables(folder):
        articles = json_value(folder / name)
        check(folder / name, articles, {})
        for title, article in articles.items():
            place = Place(folder, name, title)
            require_whole(f"{folder / name}", "title", title)
            check(place, article, {"extract": str}, {"description": str})
            lead, description = article["extract"], article.get("description")
            base = {"place": place, "id": title, "group": title}
            yield {**base, "text": lead}
            for kind, instruction, given, output in (
                ("describe", f"In a few words, what is {title}?", "", description),
                ("lead", f"Write the opening of an encyclopedia article about {title}.", "", lead),
                ("summarise", summarise(title), lead, description),
            ):
                if output:
                    yield {**base, "kind": kind, "instruction": instruction, "input": given, "output": output}
