"""WinoGrande (allenai/winogrande, and the JSON lines of its own release): {sentence with a _, option1, option2, answer}.

The answer is "1" or "2". Those of its test rows are hidden, so its validation rows are the test split here, and some
training rows validate. Twin sentences, which differ in a word, stay in one split. A record's answer is the text of the
right option.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from colpipe.data.choices import HELD_BACK, equal_choices
from colpipe.data.files import rows_of, split_in_name, tables
from colpipe.errors import ColpipeError

KNOWN = ("*-labels.lst",)  # the answers once more


SIZE = re.compile(r"(?:winogrande|train)_(xs|s|m|l|xl|debiased)(?![a-z])")


def records(folder: Path) -> Iterator[dict]:
    sizes = {found[1] for name in tables(folder) for found in SIZE.finditer(name)}
    if len(sizes) > 1:
        raise ColpipeError(
            f"{folder}: has the sizes {', '.join(sorted(sizes))}, which share rows; name one under `files`"
        )
    fields = {"sentence": str, "option1": str, "option2": str}
    for place, row in rows_of(folder, fields, optional={"answer": str}):
        if row.get("answer") in (None, ""):
            yield {"left_out": "hidden label", "place": place}
            continue
        sentence, options = row["sentence"].strip(), [row["option1"].strip(), row["option2"].strip()]
        if row["answer"] not in ("1", "2"):
            raise ColpipeError(f"{place}: answer {row['answer']!r} is neither '1' nor '2'")
        if "_" not in sentence:
            raise ColpipeError(f"{place}: the sentence has no _ to fill: {sentence!r}")
        if equal_choices(options):
            yield {"left_out": "options that cannot be told apart", "place": place}
            continue
        before, after = sentence.split("_", 1)
        group = " | ".join(sorted(options))  # twins share their options
        tested = split_in_name(place.name) in ("validation", "dev", "test")
        yield {
            "place": place,
            "id": place.id,
            "group": group,
            **({"split": "test"} if tested else {"shares": (HELD_BACK, 0)}),
            "kind": "winogrande",
            "instruction": f"Which fills the blank, {options[0]} or {options[1]}?",
            "input": sentence,
            "output": options[int(row["answer"]) - 1],
            "choices": options,
            # the two sentences differ before the continuation, not in it ("partial scoring")
            "likelihood": {
                "contexts": [before + option for option in options],
                "continuations": [f" {after.strip()}"] * 2,
            },
        }
