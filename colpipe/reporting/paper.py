"""A table or figure of the paper, made of a study's results: every number of ours beside the paper's."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from colpipe.config.paper import AVERAGE, PaperCell, all_cells, cells, tokens_of
from colpipe.evaluation.uniform import uniform_guess
from colpipe.reporting import paper_figures as figures
from colpipe.reporting.figures import smoothed
from colpipe.reporting.markdown import markdown

AXES = ["ancestor", "model", "init", "tokens", "task"]
COLUMNS = [*AXES, "metric", "paper", "ours", "difference", "low", "high", "seed", "made_of"]
OTHERS = ("accuracy", "likelihood", "loss")  # shown beside the paper's measure: at small scale they say more


class PaperTable(NamedTuple):
    """A table or figure.

    Attributes:
        numbers: a row per number, `COLUMNS`; curves have columns of their own.
        text: markdown.
        figure: matplotlib's figure, where there is one.
    """

    numbers: pd.DataFrame
    text: str
    figure: Any = None


def build(name: str, shown: dict, models: Mapping[str, str], stand_ins: Mapping[str, str], seed: int, results: Path):
    """A table or figure of scores or training losses.

    Args:
        name: as in paper.yaml.
        shown: its entry there.
        models: `PaperCell.model` → path under the results, of the cells that the study has.
        stand_ins: the paper's name → what stands for it in the study.
        results: `results/<study>/`.
    """
    if shown["metric"] in ("steps", "training loss"):
        make = convergence if shown["metric"] == "steps" else noise
        numbers, table, figure = make(shown, models, results)
        return PaperTable(numbers.assign(seed=seed), markdown(table), figure)
    numbers = scores(shown, models, stand_ins, results).assign(seed=seed)[COLUMNS]
    tables = [side_by_side(part, numbers) for part in shown["parts"]]
    others = beside(numbers)
    text = "\n".join([*map(markdown, tables), *([f"Beside it:\n\n{markdown(others)}"] if len(others) else [])])
    if name == "figure3":
        text = f"{markdown(tokens_saved(numbers))}\n{text}"
    draw = {
        "figure3": figures.against_budgets,
        "figure5a": figures.grouped_bars,
        "figure6": figures.against_alpha,
        "figure10": figures.gaps,
    }.get(name)
    return PaperTable(numbers, text, draw(numbers) if draw else None)


def with_uniform_guess(table: PaperTable, vocabulary: int) -> PaperTable:
    """The same, and the loss of a uniform guess once where losses on text are shown; those of distillations are no such."""
    recovered = "init" in table.numbers and "raw" in table.numbers
    if not recovered and not ("metric" in table.numbers and (table.numbers.metric == "loss").any()):
        return table
    guess = f"loss: {uniform_guess(vocabulary)}"
    if table.figure:
        table.figure.supxlabel(guess, fontsize=7)
    return table._replace(text=f"{table.text}\n{guess.capitalize()}.\n")


def scores(shown: dict, models: Mapping[str, str], stand_ins: Mapping[str, str], results: Path) -> pd.DataFrame:
    """A row per cell: the paper's number and ours; then, for each model, the measures that the paper does not show."""
    rows, seen = [], set()
    for part in shown["parts"]:
        found = list(cells(part))
        for cell in found:
            ours, low, high = _score(cell, found, models, stand_ins, results)
            named = {axis: cell.names.get(axis, "") for axis in AXES}
            difference = None if None in (ours, cell.paper) else ours - cell.paper
            rows.append(
                {
                    **named,
                    "metric": shown["metric"],
                    "paper": cell.paper,
                    "ours": ours,
                    "difference": difference,
                    "low": low,
                    "high": high,
                    "made_of": models.get(cell.model),
                }
            )
    tasks = {stand_ins.get(task, task): task for task in (cell.names["task"] for cell in all_cells(shown))}
    for cell in all_cells(shown):
        path = models.get(cell.model)
        if path is None or path in seen:
            continue
        seen.add(path)
        named = {axis: cell.names.get(axis, "") for axis in AXES}
        for task, metrics in _read(results, path, "scores").items():
            if task in tasks or "loss" in metrics:  # held-out text belongs to no task of the paper
                for metric in OTHERS:
                    if metric in metrics:
                        low, high = _read(results, path, "intervals")[task].get(metric, (None, None))
                        values = {"metric": metric, "ours": metrics[metric], "low": low, "high": high, "made_of": path}
                        rows.append({**named, "task": tasks.get(task, task), **values})
    return pd.DataFrame(rows, columns=[column for column in COLUMNS if column != "seed"])


def _score(
    cell: PaperCell, found: list[PaperCell], models: Mapping[str, str], stand_ins: Mapping, results: Path
) -> tuple:
    """(ours, low, high) of a cell; blank where there is none. An average is that of the tasks beside it."""
    path = models.get(cell.model)
    if path is None:
        return None, None, None
    metric = "rouge_l"
    if cell.names["task"] == AVERAGE:
        named = (each.names["task"] for each in found if each.model == cell.model)
        tasks = [stand_ins.get(task, task) for task in dict.fromkeys(named) if task != AVERAGE]
        values = [_read(results, path, "scores").get(task, {}).get(metric) for task in tasks]
        return (None if None in values else sum(values) / len(values)), None, None
    task = stand_ins.get(cell.names["task"], cell.names["task"])
    ours = _read(results, path, "scores").get(task, {}).get(metric)
    return ours, *_read(results, path, "intervals").get(task, {}).get(metric, (None, None))


@cache
def _read(results: Path, path: str, name: str) -> dict:
    return json.loads((results / "scores" / path / f"{name}.json").read_text())


def side_by_side(part: dict, numbers: pd.DataFrame) -> pd.DataFrame:
    """One part of a table as the paper has it, each cell `ours (the paper's)`."""
    main = numbers[numbers.metric == "rouge_l"]
    found = {tuple(row[:5]): row[6:8] for row in main[[*AXES, "metric", "paper", "ours"]].itertuples(index=False)}
    rows: dict[tuple, dict] = {}
    for cell in cells(part):
        paper, ours = found[tuple(cell.names.get(axis, "") for axis in AXES)]
        rows.setdefault(cell.row, {})[" ".join(cell.column)] = _pair(ours, paper)
    named = [dict(zip(part["rows"], row, strict=True)) | values for row, values in rows.items()]
    return pd.DataFrame(named)


def _pair(ours: float | None, paper: float | None) -> str:
    shown = "–" if pd.isna(ours) else f"{ours:.2f}"
    return shown if pd.isna(paper) else f"{shown} ({paper:.2f})"


def beside(numbers: pd.DataFrame) -> pd.DataFrame:
    """The measures that the paper does not show: a row per model, a column per task and measure."""
    others = numbers[numbers.metric.isin(OTHERS)]
    if not len(others):
        return others
    others = others.assign(column=others.task + " " + others.metric)
    keys = ["ancestor", "model", "init", "tokens"]
    wide = others.pivot_table(index=keys, columns="column", values="ours", sort=False)
    return wide.map(lambda value: "" if pd.isna(value) else f"{value:.3f}").reset_index()


def tokens_saved(numbers: pd.DataFrame) -> pd.DataFrame:
    """For each model and task the largest budget with which the random one does not surpass LInit without any (Figure 3)."""
    main, rows = numbers[numbers.metric == "rouge_l"], []
    for (model, task), part in main.groupby(["model", "task"], sort=False):
        random = part[part.init == "rand"]
        for _, initialised in part[part.init == "linit"].iterrows():
            row = {"model": model, "task": task, "ancestor": initialised.ancestor}
            for who in ("ours", "paper"):
                beaten = random[random[who] <= initialised[who]].tokens.tolist()
                row[who] = max(beaten, key=tokens_of) if beaten else "–"
            rows.append(row)
    return pd.DataFrame(rows)


def convergence(shown: dict, models: Mapping[str, str], results: Path) -> tuple[pd.DataFrame, pd.DataFrame, object]:
    """Training losses of LInit and of the random one, and the steps that each takes to the last loss of the latter."""
    panels, rows, table = {}, [], []
    for part in shown["parts"]:
        pairs: dict[tuple, dict[str, PaperCell]] = {}
        for cell in cells(part):
            pairs.setdefault(cell.row, {})[cell.names["init"]] = cell
        for row, pair in pairs.items():
            if not all(cell.model in models for cell in pair.values()):
                continue
            curves = {init: training_losses(results / models[cell.model]) for init, cell in pair.items()}
            panels[", ".join(row)] = curves
            named = {axis: pair["rand"].names.get(axis, "") for axis in ("ancestor", "model", "tokens")}
            for init, (steps, raw, smooth) in curves.items():
                rows += [
                    {**named, "init": init, "step": step, "raw": one, "smoothed": other}
                    for step, one, other in zip(steps, raw, smooth, strict=True)
                ]
            table.append({**dict(zip(part["rows"], row, strict=True)), **_speed_up(curves), **_papers_speed_up(pair)})
    frame = pd.DataFrame(table).astype(object)
    return pd.DataFrame(rows), frame.where(frame.notna(), "–"), figures.training_losses(panels)


def _speed_up(curves: Mapping[str, tuple]) -> dict:
    """By means over the steps before: a centred smoother knows at the first step what the next ones bring."""
    means = {
        init: pd.Series(raw).rolling(_span(raw), min_periods=1).mean().tolist() for init, (_, raw, _) in curves.items()
    }
    last = means["rand"][-1]
    linit, rand = (_first(curves[init][0], means[init], last) for init in ("linit", "rand"))
    return {
        "first loss of linit": round(curves["linit"][1][0], 3),
        "last loss of rand": round(last, 3),
        "steps linit": linit,
        "steps rand": rand,
        "speed-up": round(rand / linit, 2) if linit else None,
    }


def _first(steps: list[int], losses: list[float], wanted: float) -> int | None:
    return next((step for step, loss in zip(steps, losses, strict=True) if loss <= wanted), None)


def _papers_speed_up(pair: Mapping[str, PaperCell]) -> dict:
    linit, rand = (pair[init].paper for init in ("linit", "rand"))
    known = linit is not None and rand is not None
    return {
        "the paper's steps": f"{linit}, {rand}" if known else None,
        "speed-up there": round(rand / linit, 2) if known else None,
    }


def noise(shown: dict, models: Mapping[str, str], results: Path) -> tuple[pd.DataFrame, pd.DataFrame, object]:
    """Training losses as they came and smoothed (Figure 5b).

    Losses of different teachers are distances to different things: their levels say little, their noise is what the paper
    compares. `deviation` is the root mean square of raw minus smoothed over the second half of training.
    """
    panels: dict[str, dict] = {}
    rows, table = [], []
    for cell in all_cells(shown):
        if cell.model not in models:
            continue
        method, member = cell.names["ancestor"], cell.names["model"]
        steps, raw, smooth = panels.setdefault(member, {})[method] = training_losses(results / models[cell.model])
        frame = pd.DataFrame({"model": member, "method": method, "step": steps, "raw": raw, "smoothed": smooth})
        rows.append(frame)
        second = frame[frame.step > frame.step.max() / 2]  # warm-up and descent are no noise
        deviation = ((second.raw - second.smoothed) ** 2).mean() ** 0.5
        table.append(
            {"model": member, "method": method, "last smoothed": round(smooth[-1], 4), "deviation": round(deviation, 4)}
        )
    return pd.concat(rows), pd.DataFrame(table), figures.training_losses(panels)


def training_losses(folder: Path) -> tuple[list[int], list[float], list[float]]:
    """(steps, losses, losses smoothed) of a training run: over a fiftieth of it, nine steps at the least."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in records if record["split"] == "train"]
    raw = [record["loss"] for record in train]
    return [record["step"] for record in train], raw, smoothed(raw, _span(raw))


def _span(losses: list[float]) -> int:
    return max(9, len(losses) // 50)


def sizes(shown: dict, models: Mapping[str, str], found: Mapping[str, Mapping[str, float]]) -> PaperTable:
    """The structure of DesNets (Table 7); `found` is path → sizes."""
    rows = []
    for cell in all_cells(shown):
        path = models.get(cell.model)
        ours = found[path][cell.names["size"]] if path else None
        difference = None if ours is None else round(ours - cell.paper, 3)
        named = {"model": cell.names["model"], "size": cell.names["size"], "made_of": path}
        rows.append({**named, "paper": cell.paper, "ours": ours, "difference": difference})
    numbers = pd.DataFrame(rows)
    pairs = [_pair(row.ours, row.paper).replace(".00", "") for row in numbers.itertuples()]
    table = numbers.assign(pair=pairs).pivot_table(
        index="model", columns="size", values="pair", aggfunc="first", sort=False
    )
    return PaperTable(numbers, markdown(table.reset_index()))
