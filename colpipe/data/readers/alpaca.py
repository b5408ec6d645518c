"""{instruction, input, output} in JSON lines: Alpaca, and the files that MiniLLM publishes. Split by hash.

`output` may be a list, of several right answers; `choices` may list the allowed ones, of which `output` is one.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of
from colpipe.data.formats import Fields
from colpipe.errors import ColpipeError

FIELDS: Fields = {"instruction": str, "output": (str, list[str])}
OPTIONAL: Fields = {"input": str, "choices": list[str]}


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, FIELDS, optional=OPTIONAL):
        given = row.get("input") or ""
        answers = row["output"] if isinstance(row["output"], list) else [row["output"]]
        if not answers:
            raise ColpipeError(f"{place}: field 'output' is '[]' (list); expected one answer at least")
        yield {
            "place": place,
            "id": place.id,
            "group": f"{row['instruction']}\n{given}",
            "kind": "instruction",
            "instruction": row["instruction"],
            "input": given,
            "output": answers[0],
            **({"references": answers} if len(answers) > 1 else {}),
            **({"choices": row["choices"]} if row.get("choices") else {}),
        }
