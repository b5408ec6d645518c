"""Unnatural Instructions' core data (orhonovich/unnatural-instructions): {instruction, instances: [{input, output, …}]}.

All rows are for testing, as the paper uses them (Appendix M); `instruction_with_input` and `constraints` are not needed.
"""

from collections.abc import Iterator
from pathlib import Path

from colpipe.data.files import rows_of
from colpipe.data.instances import instance_records


def records(folder: Path) -> Iterator[dict]:
    for place, row in rows_of(folder, {"instruction": str, "instances": list}):
        yield from instance_records(place, row["instruction"], row["instances"], place.id, "unnatural")
