"""Super-NaturalInstructions (allenai/natural-instructions): tasks/….json, each {Definition, Instances: [{input, output}]}.

`output` lists several right answers. Where splits/default/test_tasks.txt is staged too, its tasks are the test split and the
others train; without it, all are for testing. As in the published evaluation, the first 100 instances of a test task count.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath

from colpipe.data.files import Place, check, files_in, tables
from colpipe.data.formats import json_value
from colpipe.errors import ColpipeError

INSTANCES = 100
LISTED = "test_tasks.txt"
FORMATS = (".json",)
KNOWN = ("*_tasks.txt",)


def records(folder: Path) -> Iterator[dict]:
    lists = [name for name in files_in(folder)[0] if PurePath(name).name == LISTED]
    if len(lists) > 1:
        raise ColpipeError(f"{folder}: {' and '.join(lists)} both say which tasks are for testing; stage one of them")
    tested = set((folder / lists[0]).read_text(encoding="utf-8-sig").split()) if lists else None
    for name in tables(folder):
        task = json_value(folder / name)
        check(str(folder / name), task, {"Definition": (str, list[str]), "Instances": list})
        definition = task["Definition"] if isinstance(task["Definition"], str) else "\n".join(task["Definition"])
        title = PurePath(name).name.split(".")[0]
        test = tested is None or title in tested
        for number, instance in enumerate(task["Instances"][:INSTANCES] if test else task["Instances"], 1):
            place = Place(folder, name, f"instance {number}")
            check(place, instance, {"input": str, "output": (str, list[str])}, {"id": str})
            answers = instance["output"] if isinstance(instance["output"], list) else [instance["output"]]
            if not answers:
                raise ColpipeError(f"{place}: has no output")
            yield {
                "place": place,
                "id": instance.get("id") or f"{title}-{number}",
                "group": title,
                "split": "test" if test else "train",
                "kind": title,
                "instruction": definition,
                "input": instance["input"],
                "output": answers[0],
                **({"references": answers} if len(answers) > 1 else {}),
            }
