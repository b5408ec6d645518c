"""What readers share whose instructions come with several instances of input and output, all of them for testing."""

from collections.abc import Iterable, Iterator

from colpipe.data.files import Place, check


def instance_records(place: Place, instruction: str, instances: Iterable[dict], name: str, kind: str) -> Iterator[dict]:
    """A record of each instance of one instruction, which `name` tells from others.

    Raises:
        ColpipeError: an instance has no input or output.
    """
    for number, instance in enumerate(instances):
        check(f"{place}: instance {number}", instance, {"input": str, "output": str})
        yield {
            "id": f"{name}.{number}",
            "group": instruction,
            "split": "test",
            "kind": kind,
            "instruction": instruction,
            "input": instance["input"],
            "output": instance["output"],
        }
