"""Which results each table and figure of the paper is made of (no torch here).

`colpipe/reporting/paper.yaml` says of which cells a table or figure consists, under the paper's names; a study says what
stands for them (its key `paper`). A cell of which a study has no model, or no score, is blank.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from colpipe.errors import ColpipeError
from colpipe.settings import parse_tokens

if TYPE_CHECKING:
    from colpipe.plan import Plan

ORIGIN = "origin"  # stands for what a chain descends from, among its models
AVERAGE = "average"  # stands for the mean of a row's tasks, among the tasks


class Cell(NamedTuple):
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
    shown = yaml.load((Path(__file__).parent / "reporting" / "paper.yaml").read_text(), loader)
    return {name: {**entry, "parts": shown[entry.get("of", name)]["parts"]} for name, entry in shown.items()}


def cells(part: dict) -> Iterator[Cell]:
    """Those of one part of a table, row by row."""
    same = {axis: str(value) for axis, value in part.get("same", {}).items() if value is not None}
    columns = [tuple(map(str, values)) for values in product(*part["columns"].values())]
    for row, numbers in _rows(part["values"], len(part["rows"])):
        for column, number in zip(columns, numbers or [None] * len(columns), strict=True):
            named = dict(zip((*part["rows"], *part["columns"]), (*row, *column), strict=True))
            yield Cell({**same, **named}, row, column, number)


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


def all_cells(shown: dict) -> list[Cell]:
    """Those of all parts of a table or figure."""
    return [cell for part in shown["parts"] for cell in cells(part)]


def models(plan: "Plan", exhibit: str) -> dict[str, str]:
    """`Cell.model` → path under the results, of the cells that a study has.

    Raises:
        ColpipeError: it has none of them.
    """
    shown = paper()[exhibit]
    found = {cell.model: path for cell in all_cells(shown) if (path := _path(plan, cell, shown["metric"]))}
    if not found:
        first = ", ".join(f"{axis} {name}" for axis, name in all_cells(shown)[0].names.items())
        raise ColpipeError(
            f"study {plan.study.study}: has none of the models of {exhibit} ({shown['title']}), the first of which is "
            f"{first}; say under `paper` what stands for these names"
        )
    return found


def has(plan: "Plan", exhibit: str) -> bool:
    """Whether a study has any cell of a table or figure."""
    try:
        return bool(models(plan, exhibit))
    except ColpipeError:
        return False


def _path(plan: "Plan", cell: Cell, metric: str) -> str | None:
    """Where the model of a cell is, under the results; None where the study lacks it or does not score it so."""
    study, own = plan.study, {axis: plan.study.paper.get(name, name) for axis, name in cell.names.items()}
    model, ancestor, init = own["model"], own.get("ancestor", ""), own.get("init")
    if metric == "parameters":
        return f"desnets/{model}" if model in study.desnets else None
    if model == ORIGIN and ancestor in study.ancestors:
        path = plan.origin(ancestor).removeprefix(f"{plan.results}/")
    elif init in study.stacks:
        path = f"stacks/{init}"
    elif "tokens" not in own:
        path = f"chain/{ancestor}/{model}"
    elif init in study.initialisers and (ancestor or study.initialisers[init].kind == "rand"):
        path = plan.desnet(ancestor, model, init, tokens_of(own["tokens"]))[0]
    else:
        return None
    if path not in plan.models:
        return None
    scored = metric != "rouge_l" or own["task"] in (AVERAGE, *plan.tasks_of(path))
    return path if scored else None
