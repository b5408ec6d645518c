"""What readers share whose instructions come with several instances of input and output, all of them for testing."""

from collections.abc import Iterator, Sequence

from colpipe.data.files import Place, check
from colpipe.errors import ColpipeError


def instance_records(place: Place, instruction: str, instances: Sequence[dict], name: str, kind: str) -> Iterator[dict]:
    """A record of each instance of one instruction, which `name` tells from others.

    Raises:
        ColpipeError: an instance has no input or output, or there is none.
    """
    if not instances:
        raise ColpipeError(f"{place}: has no instances")
    for number, instance in enumerate(instances):
        check(f"{place}: instance {number}", instance, {"input": str, "output": str})
        yield {
            "place": place,
            "id": f"{name}.{number}",
            "group": instruction,
            "split": "test",
            "kind": kind,
            "instruction": instruction,
            "input": instance["input"],
            "output": instance["output"],
        }
