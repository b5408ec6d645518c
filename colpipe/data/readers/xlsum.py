"""XLSum-English (csebuetnlp/xlsum): {id, url, title, summary, text}. Files bring their splits.

The prompt is the paper's (Appendix C.1): it asks for a summary of the article of this title, and gives the article.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of, split_in_name


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"id": str, "title": str, "summary": str, "text": str}):
        split = split_in_name(place.name)
        yield {
            "place": place,
            "id": row["id"],
            "group": row["id"],
            **({"split": "validation" if split == "dev" else split} if split else {}),
            "kind": "summary",
            "instruction": summarise(row["title"]),
            "input": row["text"],
            "output": row["summary"],
        }


def summarise(title: str | None) -> str:
    """The paper's instruction for an article (Appendix C.1), without its title where there is none."""
    named = "" if title is None else f", and the title of the article is {title}"
    return f"Given the following article{named}, please summarize the article."
