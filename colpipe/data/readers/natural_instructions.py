"""Super-NaturalInstructions (allenai/natural-instructions): tasks/….json, each {Definition, Instances: [{input, output}]}.

`output` lists several right answers. Where splits/default/test_tasks.txt is staged too, its tasks are the test split and the
others train; without it, all are for testing. As in the published evaluation, the first 100 instances of a test task count.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import check, json_value
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import content_files

INSTANCES = 100
LISTED = "test_tasks.txt"


def records(folder: Path) -> Iterator[dict]:
    files = content_files(folder)
    lists = [path for path in files if path.name == LISTED]
    tested = set(lists[0].read_text(encoding="utf-8").split()) if lists else None
    for path in (path for path in files if path.suffix == ".json"):
        task = json_value(path)
        check(str(path), task, {"Definition": (str, list), "Instances": list})
        definition = task["Definition"] if isinstance(task["Definition"], str) else "\n".join(task["Definition"])
        test = tested is None or path.stem in tested
        for number, instance in enumerate(task["Instances"][:INSTANCES] if test else task["Instances"], 1):
            place = f"{path}: instance {number}"
            check(place, instance, {"input": str, "output": (str, list)})
            answers = instance["output"] if isinstance(instance["output"], list) else [instance["output"]]
            if not answers:
                raise ColpipeError(f"{place}: has no output")
            yield {
                "id": instance.get("id") or f"{path.stem}-{number}",
                "group": path.stem,
                **({"split": "test"} if test else {"split": "train"}),
                "kind": path.stem,
                "instruction": definition,
                "input": instance["input"],
                "output": answers[0],
                **({"references": answers} if len(answers) > 1 else {}),
            }
