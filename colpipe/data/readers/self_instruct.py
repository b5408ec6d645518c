"""Self-Instruct's user-oriented instructions (human_eval/user_oriented_instructions.jsonl), 252 rows, all for testing.

{id, motivation_app, instruction, instances: [{input, output}]}, or with lists inside `instances`, as the hub has them.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import check, rows_of
from colpipe.data.instances import instance_records
from colpipe.errors import ColpipeError


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"id": str, "instruction": str, "instances": (list, dict)}):
        instances = row["instances"]
        if isinstance(instances, dict):
            check(f"{place}: instances", instances, {"input": list[str], "output": list[str]})
            if len(instances["input"]) != len(instances["output"]):
                raise ColpipeError(
                    f"{place}: has {len(instances['input'])} inputs and {len(instances['output'])} outputs"
                )
            pairs = zip(instances["input"], instances["output"], strict=True)
            instances = [{"input": given, "output": output} for given, output in pairs]
        yield from instance_records(place, row["instruction"], instances, row["id"], "self-instruct")
