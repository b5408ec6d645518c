"""The tables and figures of the paper, cell by cell, under the paper's names (no torch here).

`paper.yaml` beside this module says of which cells a table or figure consists; a study says what stands for the paper's
names (its key `paper`).
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import yaml

from colpipe.config.parts import parse_tokens

AVERAGE = "average"  # stands for the mean of a row's tasks, among the tasks


class PaperCell(NamedTuple):
    """A number of a table or figure.

    Attributes:
        names: axis → the paper's name: ancestor, model, init, tokens, task; those that it has.
        row, column: where it stands in its part of the table.
        paper: the paper's number, where it gives one.
    """

    names: dict[str, str]
    row: tuple[str, ...]
    column: tuple[str, ...]
    paper: float | None

    @property
    def model(self) -> str:
        """Stands for its model, whatever the task."""
        return "/".join(self.names.get(axis, "-") for axis in ("ancestor", "model", "init", "tokens"))


@cache
def paper() -> dict[str, dict]:
    """The paper's tables and figures by name; `of` is filled in."""
    # Every start of Snakemake reads it; libyaml, where it is there, is ten times faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    shown = yaml.load(Path(__file__).with_name("paper.yaml").read_text(), loader)
    return {name: {**entry, "parts": shown[entry.get("of", name)]["parts"]} for name, entry in shown.items()}


def cells(part: dict) -> Iterator[PaperCell]:
    """Those of one part of a table, row by row."""
    same = {axis: str(value) for axis, value in part.get("same", {}).items() if value is not None}
    columns = [tuple(map(str, values)) for values in product(*part["columns"].values())]
    for row, numbers in _rows(part["values"], len(part["rows"])):
        for column, number in zip(columns, numbers or [None] * len(columns), strict=True):
            named = dict(zip((*part["rows"], *part["columns"]), (*row, *column), strict=True))
            yield PaperCell({**same, **named}, row, column, number)


def _rows(values: dict, depth: int) -> Iterator[tuple[tuple[str, ...], list]]:
    for name, below in values.items():
        if depth == 1:
            yield (str(name),), below
        else:
            yield from (((str(name), *rest), numbers) for rest, numbers in _rows(below, depth - 1))


def names() -> list[str]:
    """All names that the paper's tables and figures use."""
    return sorted({name for shown in paper().values() for cell in all_cells(shown) for name in cell.names.values()})


def tokens_of(name: str) -> int:
    """A budget by its name, `78M`."""
    return int(parse_tokens(name))


def all_cells(shown: dict) -> list[PaperCell]:
    """Those of all parts of a table or figure."""
    return [cell for part in shown["parts"] for cell in cells(part)]
