"""Tables of the page: what a cell shows, and the number that it is sorted by."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from colpipe.config.parts import tokens_label
from colpipe.config.study import Study
from colpipe.evaluation.uniform import is_broken
from colpipe.reporting.charts import interval
from colpipe.reporting.history import Event
from colpipe.reporting.kept import ALL, DIFFERENCE, KEPT
from colpipe.reporting.recovery import Comparison, Stop, method_label, recovered
from colpipe.reporting.summary import FILE_METRICS

# Metrics in the order in which they are shown → heading, digits. Deviations over samples are in summary.csv.
METRICS = {
    "loss": ("loss", 3),
    "perplexity": ("perplexity", 2),
    "bits_per_byte": ("bits per byte", 3),
    "rouge_l": ("Rouge-L", 1),
    "accuracy": ("accuracy", 1),
    "likelihood": ("likelihood accuracy", 1),
    "likelihood_normalised": ("likelihood accuracy, by length", 1),
    "unparsable": ("unparsable", 1),
    "last_word": ("last words", 1),
    "answer_bits_per_byte": ("bits per byte of answers", 3),
    **{
        f"{metric}{DIFFERENCE}": ("less the ancestor's", 1)
        for metric in ("likelihood", "likelihood_normalised", "last_word")
    },
    KEPT: ("kept", 1),
}


class Cell(NamedTuple):
    """What is shown, what it is sorted by (None: its text), and what stands smaller behind it."""

    shown: str | Markup
    value: float | None = None
    note: str = ""


class Table(NamedTuple):
    """Headings and rows; columns of numbers stand right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def numbers(self) -> list[bool]:
        """Which columns hold nothing but numbers and blanks, and some number."""
        cells = [[row[column] for row in self.rows] for column in range(len(self.columns))]
        return [
            any(cell.value is not None for cell in column)
            and all(cell.value is not None or not cell.shown for cell in column)
            for column in cells
        ]


def number(value: float | None, digits: int = 0) -> Cell:
    """A number with thousands separated; blank where there is none."""
    return Cell("") if value is None or pd.isna(value) else Cell(f"{value:,.{digits}f}", float(value))


def tokens(value: float | None) -> Cell:
    """A token count in its short form."""
    return Cell("") if value is None or pd.isna(value) else Cell(tokens_label(int(value)), float(value))


def models(study: Study) -> Table:
    """Every member and DesNet, largest first: sizes, how it starts, what it lies between."""
    found = []
    for name, member in study.chain.items():
        subset = {"inherit": "subset of its teacher", "fit": "subset of its teacher, fitted"}.get(member.start)
        start = subset or member.model or "pre-trained here"
        found.append((name, "chain", member.shape, start, ""))
    for name, desnet in study.desnets.items():
        between = " and ".join(neighbour for neighbour in study.neighbours(name) if neighbour)
        found.append((name, "DesNet", desnet.shape, ", ".join(study.initialisers_of(name)), between))
    found.sort(key=lambda model: -study.parameters(model[2]))
    rows = [
        [Cell(name), Cell(role), Cell(str(shape)), number(study.parameters(shape)), Cell(start), Cell(between)]
        for name, role, shape, start, between in found
    ]
    return Table(["model", "role", "layers / heads / channels", "parameters", "starts as", "between"], rows)


def scores(study: Study, summary: pd.DataFrame) -> dict[str, Table]:
    """Task or corpus → a row for each model: every metric with its 95 % interval; and what is kept over all tasks."""
    names = [*study.perplexity, *([ALL] if (summary.task == ALL).any() else []), *study.tasks]
    return {task: _scores(study, summary[summary.task == task]) for task in names}


def _scores(study: Study, part: pd.DataFrame) -> Table:
    metrics = [metric for metric in METRICS if (part.metric == metric).any()]
    ancestors = len(study.ancestors) > 1
    first = part[part.metric == metrics[0]].dropna(subset=["low", "high"]) if metrics else part
    ends = (first.low.min(), first.high.max()) if len(first) else (0, 1)
    keys = ["ancestor", "desnet", "params", "init", "tokens"]
    rows = []
    for key, rows_of_model in part.fillna({"ancestor": ""}).groupby(keys, dropna=False, sort=False):
        ancestor, desnet, params, init, budget = key
        values = rows_of_model.set_index("metric")
        guess = pd.isna(desnet) or not desnet
        recovery = None if pd.isna(budget) else budget
        row = [Cell("guessing" if guess else desnet), Cell(init), tokens(budget)]
        for place, metric in enumerate(metrics):
            if metric not in values.index:
                row += [Cell("")] * (2 if place == 0 else 1)
                continue
            value, low, high = values.loc[metric, ["value", "low", "high"]]
            digits = METRICS[metric][1]
            note = "" if pd.isna(low) else f"{low:.{digits}f} to {high:.{digits}f}"
            if metric == "loss" and is_broken(value, study.architecture.vocabulary, ancestor, recovery):
                note = f"{note}, broken".removeprefix(", ")
            row.append(Cell(f"{value:.{digits}f}", float(value), note))
            if place == 0:
                row.append(Cell("") if pd.isna(low) else Cell(interval(low, value, high, *ends), float(value)))
        row += [Cell(ancestor)] if ancestors else []
        rows.append([*row, number(params)])
    columns = ["model", "made by", "tokens"]
    for place, metric in enumerate(metrics):
        columns += [METRICS[metric][0], *(["95 % interval"] if place == 0 else [])]
    columns += [*(["ancestor"] if ancestors else []), "parameters"]
    return Table(columns, rows)


def files(summary: pd.DataFrame) -> Table | None:
    """Size and speed of every GGUF file that the study reports; None where it reports none."""
    found = summary[summary.metric.isin(FILE_METRICS)]
    if found.empty:
        return None
    keys = ["desnet", "init", "tokens", "task", "ancestor", "params"]
    wide = found.pivot_table(index=keys, columns="metric", values="value", observed=True, sort=False, dropna=False)
    wide = wide.dropna(how="all").reindex(columns=list(FILE_METRICS)).reset_index()
    rows = [
        [
            Cell(row.desnet), Cell(row.init), tokens(row.tokens), Cell(row.task.upper()), number(row.bytes),
            number(row.prompt, 1), number(row.answer, 1), Cell(row.ancestor), number(row.params),
        ]
        for row in wide.itertuples()
    ]  # fmt: skip
    speeds = ["tokens/s of a prompt", "tokens/s of an answer"]
    return Table(["model", "made by", "tokens", "type", "bytes", *speeds, "ancestor", "parameters"], rows)


def stop_table(study: Study, found: Mapping[str, Stop]) -> Table:
    """What every recovery took until it was good enough, or had learnt from when its budget was over."""
    models, rows = recovered(study), []
    for path, stop in found.items():
        columns = models[path]
        label = method_label(study, columns["init"], columns["ancestor"])
        took = number(stop.tokens) if stop.reached else Cell(f"not within {stop.of:,}", float("inf"))
        row = [Cell(columns["desnet"]), Cell(label), tokens(columns["tokens"]), number(stop.target, 3), took]
        rows.append([*row, Cell(f"{100 * stop.tokens / stop.of:.0f} %", stop.tokens / stop.of), number(stop.loss, 3)])
    return Table(["DesNet", "made by", "budget", "loss to reach", "tokens", "of all", "loss"], rows)


def comparison_table(found: Iterable[Comparison]) -> Table:
    """When each method is as good as the random model in the end."""
    rows = []
    for entry in found:
        if entry.tokens is None:
            shown, times = Cell("not within its budget", float("inf")), Cell("less than 1 ×", 0.0)
        elif not entry.tokens:
            shown, times = Cell("0, as assembled", 0.0), Cell("needs none", float("inf"))
        else:
            shown, times = number(entry.tokens), Cell(f"{entry.speed_up:.1f} ×", entry.speed_up)
        rows.append(
            [Cell(entry.desnet), Cell(entry.method), number(entry.target, 3), number(entry.baseline), shown, times]
        )
    return Table(["DesNet", "made by", "loss to reach", "tokens, random", "tokens", "speed-up"], rows)


def events(found: Iterable[Event]) -> Table:
    """What happened to jobs, in the order of time."""
    return Table(
        ["when", "job", "what", "its log says", "in the end"],
        [
            [
                Cell(event.when),
                Cell(event.job),
                Cell(event.kind),
                Cell(event.text),
                Cell("finished" if event.ended else "not finished"),
            ]
            for event in found
        ],
    )


def leakage(results: Path) -> Table | None:
    """The pairs of an evaluation and a training set that share anything, and how much; None where it was not counted."""
    path = results / "leakage" / "leakage.csv"
    if not path.exists():
        return None
    frame = pd.read_csv(path)
    frame = frame[frame.overlapping > 0]
    rows = []
    for row in frame.to_dict("records"):
        share = 100 * row["overlapping"] / row["rows"]
        rows.append([*(_plain(value) for value in row.values()), Cell(f"{share:.1f} %", share)])
    return Table([*(name.replace("_", " ") for name in frame.columns), "share"], rows)


def plain(frame: pd.DataFrame) -> Table:
    """Any frame."""
    rows = [[_plain(value) for value in row] for row in frame.itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in frame.columns], rows)


def _plain(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    if value is None or pd.isna(value):
        return Cell("")
    whole = float(value).is_integer() or abs(value) >= 1000
    return Cell(f"{value:,.0f}" if whole else f"{value:.4g}", float(value))


STARTS = {
    "inherit": "begin as a part of the teacher",
    "fit": "begin as a fitted part of the teacher",
    "pretrained": "begin as published models",
    "scratch": "are pre-trained by themselves",
}


def describe_study(study: Study) -> dict[str, list[str]]:
    """The study in a few lines: what → in words, a line for each ancestor."""
    ancestors = []
    for name, ancestor in study.ancestors.items():
        origin = f"{ancestor.model} through the bridge {ancestor.bridge}" if ancestor.bridge else ancestor.model
        members = study.members(name)
        objectives = dict.fromkeys(study.distill_settings(name, member).objective for member in members)
        starts = dict.fromkeys(STARTS[study.start(name, member)] for member in members)
        steps = "directly by the ancestor" if ancestor.teacher == "ancestor" else "step by step"
        words = f"{', '.join(members)} {' or '.join(starts)}; distilled {steps} by {' and '.join(objectives)}"
        ancestors.append(f"{name}: {origin}; {words}; select {ancestor.select}")
    initialisers = []
    for name, entry in study.initialisers.items():
        method = f" {entry.method}" if entry.kind in ("linit", "single") or entry.method == "fit" else ""
        initialisers.append(name if name == entry.kind else f"{name} ({entry.kind}{method})")
    architecture = study.architecture
    shapes = _shapes(study.chain)
    rows = {
        "Ancestors" if len(ancestors) > 1 else "Ancestor": ancestors,
        "Chain": [f"{architecture.family}, vocabulary {architecture.vocabulary:,}: {shapes}"],
        "DesNets": [_shapes(study.desnets)],
        "Initialisers": [", ".join(initialisers)],
        "Recovery budgets": [f"{', '.join(tokens_label(count) for count in study.budgets)} tokens"],
        "Held-out text": [", ".join(study.perplexity)],
        "Tasks": [", ".join(study.tasks)],
        "Seed": [str(study.seed)],
    }
    return {name: lines for name, lines in rows.items() if any(lines)}


def _shapes(models: Mapping) -> str:
    return ", ".join(f"{name} ({model.shape})" for name, model in models.items())
