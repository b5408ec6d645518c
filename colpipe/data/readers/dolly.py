"""Dolly-15k (databricks/databricks-dolly-15k): {instruction, context, response, category}.

The kinds are its categories. One file without splits; a context that several questions are asked of stays in one of them.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of


def records(folder: Path) -> Iterator[dict]:
    fields = {"instruction": str, "context": str, "response": str, "category": str}
    for place, row in rows_of(folder, fields):
        yield {
            "place": place,
            "id": place.id,
            "group": row["context"].strip() or row["instruction"].strip(),
            "kind": row["category"],
            "instruction": row["instruction"],
            "input": row["context"],
            "output": row["response"],
        }
