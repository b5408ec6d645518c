"""HellaSwag (Rowan/hellaswag): {ind, activity_label, ctx_a, ctx_b, endings, label}; the label is the right ending's index.

The labels of its test rows are hidden, so its validation rows are the test split here, and some training rows validate.
Contexts of one source document (`source_id`) stay in one split. The answer is the text of the right ending.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import HELD_BACK, likelihood
from colpipe.data.files import Fields, rows_of, split_in_name
from colpipe.data.records import split_of
from colpipe.errors import ColpipeError

FIELDS: Fields = {"ind": int, "activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": (str, int)}


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, FIELDS):
        if row["label"] == "":
            yield {"left_out": "hidden label", "place": str(place)}
            continue
        endings = [plain(ending) for ending in row["endings"]]
        if not str(row["label"]).isdigit() or int(row["label"]) >= len(endings):
            raise ColpipeError(f"{place}: label {row['label']!r} is not the index of one of {len(endings)} endings")
        context = plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        group = row.get("source_id") or f"ind {row['ind']}"
        tested = split_in_name(place.name) in ("validation", "dev")
        yield {
            "id": f"{place.name}:{row['ind']}",
            "group": group,
            "split": "test" if tested else split_of(group, HELD_BACK, 0),
            "kind": "hellaswag",
            "instruction": "Choose the ending that continues this description best, and write it out.",
            "input": "\n".join([context, *(f"- {ending}" for ending in endings)]),
            "output": endings[int(row["label"])],
            "choices": endings,
            "likelihood": likelihood(context, endings),
        }


def plain(text: str) -> str:
    """Text without the brackets that its WikiHow part has, as lm-eval cleans it."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")
