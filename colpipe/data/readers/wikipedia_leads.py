"""Lead sections of Wikipedia articles, some with a one-line description: {title: {extract, description}} in JSON.

Kinds: `describe` (title → description), `lead` (title → lead section), `summarise` (title and lead section → description,
with the paper's summarisation prompt).
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import check, json_value, tables
from colpipe.data.readers.xlsum import summarise


def records(folder: Path) -> Iterator[dict]:
    for path in map(folder.joinpath, tables(folder)):
        articles = json_value(path)
        check(path, articles, {})
        for title, article in articles.items():
            check(f"{path}: {title}", article, {"extract": str})
            base, lead, description = {"id": title, "group": title}, article["extract"], article.get("description")
            yield {**base, "text": lead}
            for kind, instruction, given, output in (
                ("describe", f"In a few words, what is {title}?", "", description),
                ("lead", f"Write the opening of an encyclopedia article about {title}.", "", lead),
                ("summarise", summarise(title), lead, description),
            ):
                if output:
                    yield {**base, "kind": kind, "instruction": instruction, "input": given, "output": output}
