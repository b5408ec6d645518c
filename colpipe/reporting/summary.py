"""The summary table: one row per model, task and metric, and guessing beside it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from colpipe.config.layout import Layout
from colpipe.config.parts import tokens_label
from colpipe.config.stages import Task
from colpipe.config.study import Study
from colpipe.data.files import some
from colpipe.data.rows import read_rows
from colpipe.evaluation.scores import guessing, interval, percent
from colpipe.evaluation.uniform import is_broken, uniform_guess, uniform_loss
from colpipe.jobs.artifacts import read_manifest

COLUMNS = ["ancestor", "desnet", "params", "init", "alpha", "tokens", "task", "metric", "value", "low", "high", "seed"]
UNIFORM = "uniform"  # `init` of the row of a uniform guess


def summarise(study: Study, results: Path) -> pd.DataFrame:
    """Read every score of a study.

    Args:
        results: `results/<study>/`.

    Returns:
        A frame with `COLUMNS`; `low` and `high` are the ends of the value's 95 % interval. Guessing rows have `init` chance
        or majority, or uniform on text, and no model.
    """
    rows = []
    for path, columns in Layout(study).models.items():
        if "tokens" in columns:
            columns = {**columns, "alpha": _alpha(results / Path(path).parent / "0")}
        folder = results / "scores" / path
        intervals = json.loads((folder / "intervals.json").read_text())
        for task, metrics in json.loads((folder / "scores.json").read_text()).items():
            for metric, value in metrics.items():
                low, high = intervals[task].get(metric, (None, None))  # a deviation has none
                rows.append({**columns, "task": task, "metric": metric, "value": value, "low": low, "high": high})
    for task, settings in study.tasks.items():
        folder = results / "data" / settings.instructions
        read_manifest(folder)
        trained = results / "data" / (settings.train or settings.instructions)
        rows += [{**row, "task": task} for row in guesses(settings, folder, trained)]
    vocabulary = study.architecture.vocabulary
    rows += [{"init": UNIFORM, "task": corpus, **uniform_row(vocabulary)} for corpus in study.perplexity]
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(seed=study.seed)
    return frame.astype({"params": "Int64", "tokens": "Int64"})


def guesses(task: Task, folder: Path, trained: Path) -> Iterator[dict]:
    """What a task scores without reading the question: rows of `init` (`majority` or `chance`), metric, value, low, high.

    Args:
        folder: prepared instructions with the test rows.
        trained: those with the training rows.
    """
    train = read_rows(trained, "train") if task.fine_tune else []
    for init, values in guessing(train, read_rows(folder, "test")).items():
        for metric, value in percent(values).items():
            low, high = (100 * end for end in interval(values[metric]))
            yield {"init": init, "metric": metric, "value": value, "low": low, "high": high}


def uniform_row(vocabulary: int) -> dict:
    """What a uniform guess scores on text: metric, value."""
    return {"metric": "loss", "value": uniform_loss(vocabulary)}


def broken_models(study: Study, summary: pd.DataFrame) -> list[str]:
    """Models whose held-out loss says that they are broken, in words."""
    found = summary[(summary.metric == "loss") & summary.task.isin(study.perplexity) & (summary.init != UNIFORM)]
    named = []
    for row in found.fillna({"ancestor": "", "desnet": "", "init": "", "tokens": -1}).itertuples():
        if is_broken(row.value, study.architecture.vocabulary, row.ancestor, row.tokens):
            words = (row.ancestor, row.desnet, row.init, tokens_label(int(row.tokens)) if row.tokens >= 0 else "")
            named.append(" ".join(word for word in words if word))
    return list(dict.fromkeys(named))


def remarks(study: Study, summary: pd.DataFrame) -> list[str]:
    """What stands once beside losses: that of a uniform guess, and which models are worse."""
    if not study.perplexity:
        return []
    guess, worse = uniform_guess(study.architecture.vocabulary), broken_models(study, summary)
    lines = [f"Loss: nats per token; {guess}."]
    if worse:
        lines.append(f"Broken, worse than a uniform guess: {len(worse):,} ({some(worse)}).")
    return lines


def _alpha(assembled: Path) -> float | None:
    """The alpha that a DesNet was assembled with, found by `search` or not; the mean of one per layer."""
    alpha = read_manifest(assembled).get("alpha")
    return sum(alpha) / len(alpha) if isinstance(alpha, list) else alpha


def compact(study: Study, summary: pd.DataFrame) -> pd.DataFrame:
    """The table that people read: a row per model, a column per main metric of each task."""
    columns = [(corpus, "loss") for corpus in study.perplexity]
    columns += [(task, metric) for task in study.tasks for metric in ("rouge_l", "accuracy", "likelihood")]
    keys = ["ancestor", "desnet", "params", "init", "alpha", "tokens"]
    wide = summary.pivot_table(
        index=keys, columns=["task", "metric"], values="value", dropna=False, observed=True, sort=False
    )
    wide = wide.dropna(how="all").dropna(how="all", axis="columns")
    wide = wide[[column for column in columns if column in wide.columns]]
    wide.columns = [f"{task} {metric.replace('_', '-')}" for task, metric in wide.columns]
    return wide.reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as people read them; blanks where there is none."""
    shown = table.copy()
    shown["params"] = [f"{value:,}" if pd.notna(value) else "" for value in table["params"]]
    shown["tokens"] = [tokens_label(int(value)) if pd.notna(value) else "" for value in table["tokens"]]
    for column in table.columns[table.columns.get_loc("alpha") :]:
        if column != "tokens":
            digits = 3 if column.endswith("loss") else 2
            shown[column] = [f"{value:.{digits}f}" if pd.notna(value) else "" for value in table[column]]
    return shown.fillna("")
