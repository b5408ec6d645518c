"""What the first figure of a study shows, from its summary alone: held-out loss against parameters, a line a method, and in
a second panel what is kept of the ancestor's scores, where the summary has it (no torch here)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from colpipe.config.parts import tokens_label

ANCESTORS = ("as it is", "sft", "seqkd")  # `init` of what chains descend from, as the summary has it
MEMBER = "distilled"
KEYS = ["ancestor", "desnet", "params", "init", "tokens"]  # what tells models apart


class Model(NamedTuple):
    """A model with its value; `low` and `high` are the ends of its 95 % interval, or not numbers."""

    name: str
    params: float
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """A method: an initialiser with a budget. `colour` is the initialiser's, `dashes` the budget's."""

    label: str
    colour: int
    dashes: int
    models: list[Model]


class Panel(NamedTuple):
    """What is drawn on one pair of axes; `metric` is `loss` or `kept`."""

    metric: str
    title: str
    lines: list[Line]
    members: list[Model]
    ancestors: list[Model]

    @property
    def models(self) -> list[Model]:
        """All of them."""
        return [*(model for line in self.lines for model in line.models), *self.members, *self.ancestors]


def panels(summary: pd.DataFrame) -> Iterator[Panel]:
    """The panel of the first corpus's loss, and that of `kept`, as far as the summary has them. A method looks the same in
    both."""
    words = dict.fromkeys(("ancestor", "desnet", "init"), "")
    frame = summary.astype({"params": "float", "tokens": "float", **dict.fromkeys(words, "object")}).fillna(words)
    frame = frame[frame.desnet != ""].dropna(subset="value")  # guessing has no model
    built = frame[frame.tokens.notna()]
    several = built[built.ancestor != ""].ancestor.nunique() > 1
    frame = frame.assign(method=(frame.ancestor + " " + frame.init).str.strip() if several else frame.init)
    methods, budgets = list(frame.method[built.index].unique()), sorted(built.tokens.unique(), reverse=True)
    losses, kept = frame[frame.metric == "loss"], frame[frame.metric == "kept"]
    means = set(kept.task) - set(frame[frame.metric != "kept"].task)  # rows of no task, but of all of them
    found = [
        ("loss", "Held-out loss on {}, nats per token", losses[losses.task.isin(losses.task[:1])]),
        (
            "kept",
            "Kept of the ancestor's score above chance, percent: {}",
            kept[kept.task.isin(means or set(kept.task))],
        ),
    ]
    for metric, title, rows in found:
        tasks, each = _over_tasks(rows)
        sized = each[each.tokens.notna() & each.params.notna()]
        lines = [
            Line(
                f"{method}, {tokens_label(int(tokens))} tokens",
                methods.index(method),
                budgets.index(tokens),
                _models(own.sort_values("params", kind="stable")),
            )
            for (method, tokens), own in sized.groupby(["method", "tokens"], sort=False)
        ]
        if lines:
            others = each[each.tokens.isna()]
            members = _models(others[(others.init == MEMBER) & others.params.notna()])
            yield Panel(metric, title.format(tasks), lines, members, _models(others[others.init.isin(ANCESTORS)]))


def _over_tasks(frame: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Which tasks, in words, and a row for each model: its only one, or the mean over the tasks that all models have, which
    has no interval."""
    counts = frame.task.value_counts(sort=False)
    tasks = list(counts[counts == counts.max()].index)
    frame = frame[frame.task.isin(tasks)]
    if len(tasks) < 2:
        return "".join(tasks), frame
    grouped = frame.groupby([*KEYS, "method"], sort=False, dropna=False).value
    means = grouped.mean()[grouped.count() == len(tasks)].reset_index()
    return f"mean of {len(tasks)} tasks", means.assign(low=math.nan, high=math.nan)


def _models(frame: pd.DataFrame) -> list[Model]:
    return [
        Model(row.desnet, row.params, row.value, row.low, row.high)
        for row in frame[["desnet", "params", "value", "low", "high"]].itertuples(index=False)
    ]
