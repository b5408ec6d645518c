"""Unnatural Instructions' core data (orhonovich/unnatural-instructions): {instruction, instances: [{input, output, …}]}.

All rows are for testing, as the paper uses them (Appendix M); `instruction_with_input` and `constraints` are not needed.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import check, rows_of


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"instruction": str, "instances": list}):
        for number, instance in enumerate(row["instances"]):
            check(f"{place}: instance {number}", instance, {"input": str, "output": str})
            yield {
                "id": f"{place.id}.{number}",
                "group": row["instruction"],
                "split": "test",
                "kind": "unnatural",
                "instruction": row["instruction"],
                "input": instance["input"],
                "output": instance["output"],
            }
