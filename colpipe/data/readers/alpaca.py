"""{instruction, input, output} in JSON lines: Alpaca, and the files that MiniLLM publishes.

`output` may be a list, of several right answers; `choices` may list the allowed ones.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"instruction": str, "output": (str, list)}):
        given = row.get("input") or ""
        answers = row["output"] if isinstance(row["output"], list) else [row["output"]]
        yield {
            "id": place.id,
            "group": f"{row['instruction']}\n{given}",
            "kind": "instruction",
            "instruction": row["instruction"],
            "input": given,
            "output": answers[0],
            **({"references": answers} if len(answers) > 1 else {}),
            **({"choices": row["choices"]} if row.get("choices") else {}),
        }
