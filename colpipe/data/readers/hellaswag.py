"""HellaSwag (Rowan/hellaswag, and the JSON lines of its own release): {ind, activity_label, ctx_a, ctx_b, endings, label}.

The label is the right ending's index. Labels of its test rows are hidden, so its validation rows are the test split here,
and some training rows validate. Contexts of one source document (`source_id`) stay in one split. The answer is the text of
the right ending.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import HELD_BACK, equal_choices, likelihood
from colpipe.data.files import rows_of, split_in_name
from colpipe.data.formats import Fields
from colpipe.errors import ColpipeError

FIELDS: Fields = {"ind": int, "activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list[str]}
OPTIONAL: Fields = {"label": (str, int), "source_id": str}


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, FIELDS, optional=OPTIONAL):
        if row.get("label") in (None, ""):
            yield {"left_out": "hidden label", "place": place}
            continue
        cleaned = [plain(ending) for ending in row["endings"]]
        endings = [ending.strip() for ending in cleaned]
        if not str(row["label"]).isdecimal() or int(row["label"]) >= len(endings):
            raise ColpipeError(f"{place}: label {row['label']!r} is not the index of one of {len(endings)} endings")
        if equal_choices(endings):
            yield {"left_out": "endings that cannot be told apart", "place": place}
            continue
        context = plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        group = row.get("source_id") or f"ind {row['ind']}"
        tested = split_in_name(place.name) in ("validation", "dev", "test")
        yield {
            "place": place,
            "id": f"{place.name}:{row['ind']}",
            "group": group,
            **({"split": "test"} if tested else {"shares": (HELD_BACK, 0)}),
            "kind": "hellaswag",
            "instruction": "Choose the ending that continues this description best, and write it out.",
            "input": "\n".join([context.strip(), *(f"- {ending}" for ending in endings)]),
            "output": endings[int(row["label"])],
            "choices": endings,
            "likelihood": likelihood(context, cleaned),
        }


def plain(text: str) -> str:
    """Text without the brackets that its WikiHow part has, as lm-eval cleans it: a blank stays where a bracket was first."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")
