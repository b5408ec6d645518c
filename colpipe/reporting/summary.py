"""The summary table: one row per model, task and metric, and guessing beside it."""

import json
from pathlib import Path

import pandas as pd

from colpipe.checkpoint import read_manifest
from colpipe.data.tokens import read_rows
from colpipe.evaluation.scores import guessing
from colpipe.plan import Plan
from colpipe.study import Study

COLUMNS = ["ancestor", "desnet", "params", "init", "alpha", "tokens", "task", "metric", "value", "seed"]


def summarise(study: Study, results: Path) -> pd.DataFrame:
    """Read every score of a study.

    Args:
        results: `results/<study>/`.

    Returns:
        A frame with `COLUMNS`; guessing rows have `init` chance or majority and no model.
    """
    rows = []
    for path, columns in Plan(study).models().items():
        if "tokens" in columns:
            columns = {**columns, "alpha": _alpha(results / Path(path).parent / "0")}
        scores = json.loads((results / "scores" / path / "scores.json").read_text())
        for task, metrics in scores.items():
            for metric, value in metrics.items():
                rows.append({**columns, "task": task, "metric": metric, "value": value, "seed": study.seed})
    for task, settings in study.tasks.items():
        folder = results / "data" / settings.instructions
        read_manifest(folder)
        for init, metrics in guessing(read_rows(folder, "train"), read_rows(folder, "test")).items():
            for metric, value in metrics.items():
                rows.append({"init": init, "task": task, "metric": metric, "value": value, "seed": study.seed})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"params": "Int64", "tokens": "Int64"})


def _alpha(assembled: Path) -> float | None:
    """The alpha that a DesNet was assembled with, found by `search` or not; the mean of one per layer."""
    alpha = read_manifest(assembled).get("alpha")
    return sum(alpha) / len(alpha) if isinstance(alpha, list) else alpha


def compact(study: Study, summary: pd.DataFrame) -> pd.DataFrame:
    """The table that people read: a row per model, a column per main metric of each task."""
    columns = [(corpus, "loss") for corpus in study.perplexity]
    columns += [(task, metric) for task in study.tasks for metric in ("rouge_l", "accuracy")]
    keys = ["ancestor", "desnet", "params", "init", "alpha", "tokens"]
    wide = summary.pivot_table(
        index=keys, columns=["task", "metric"], values="value", dropna=False, observed=True, sort=False
    )
    wide = wide.dropna(how="all").dropna(how="all", axis="columns")
    wide = wide[[column for column in columns if column in wide.columns]]
    wide.columns = [f"{task} {metric.replace('_', '-')}" for task, metric in wide.columns]
    return wide.reset_index()


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table; text as it is."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
