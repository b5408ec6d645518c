"""The summary table: one row per model, task and metric, and guessing beside it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from colpipe.config.layout import Layout
from colpipe.config.study import Study
from colpipe.data.rows import read_rows
from colpipe.evaluation.uniform import uniform_loss
from colpipe.jobs.artifacts import read_manifest
from colpipe.reporting.exports import read_exports
from colpipe.reporting.kept import comparisons, guesses
from colpipe.reporting.recovery import Stop, stops

COLUMNS = ["ancestor", "desnet", "params", "init", "alpha", "tokens", "task", "metric", "value", "low", "high", "seed"]
TO_RECOVER = "tokens_to_recover"  # metric of a recovery that ended where `stop_at` asks; its task is the corpus
UNIFORM = "uniform"  # `init` of the row of a uniform guess
# Of a GGUF file, whose type stands where a task does: metric → heading in the table, unit, digits.
FILE_METRICS = {"bytes": ("MB", 1e6, 1), "prompt": ("prompt tok/s", 1, 0), "answer": ("answer tok/s", 1, 0)}


def summarise(study: Study, results: Path) -> pd.DataFrame:
    """Read every score of a study.

    Args:
        results: `results/<study>/`.

    Returns:
        A frame with `COLUMNS`; `low` and `high` are the ends of the value's 95 % interval. Guessing rows have `init` chance
        or majority, or uniform on text, and no model. What `kept.comparisons` says of a model stands after its scores. A
        DesNet whose recovery was ended by `stop_at` has the metric `tokens_to_recover` on the recovery's corpus; one whose
        budget ended before has no such row. Of GGUF files that the study reports, the task is their type, and metrics are
        `bytes` and, tokens a second, `prompt` and `answer`.
    """
    rows, layout, ended = [], Layout(study), stops(study, results)
    tested = {
        name: read_rows(results / "data" / task.instructions, "test")
        for name, task in study.tasks.items()
        if task.likelihood
    }
    folders = {path: results / "scores" / path for path in layout.models}
    compared = comparisons(tested, folders, {path: layout.compared_with(path) for path in folders})
    for path, columns in layout.models.items():
        if "tokens" in columns:
            columns = {**columns, "alpha": _alpha(results / Path(path).parent / "0")}
        if columns["params"] is None:  # fetched, so that the study does not say
            columns = {**columns, "params": read_manifest(results / path).get("parameters")}
        folder = folders[path]
        intervals = json.loads((folder / "intervals.json").read_text())
        for task, metrics in json.loads((folder / "scores.json").read_text()).items():
            for metric, value in metrics.items():
                low, high = intervals[task].get(metric, (None, None))  # a deviation has none
                rows.append({**columns, "task": task, "metric": metric, "value": value, "low": low, "high": high})
        rows += [{**columns, **row} for row in compared[path]]
        if path in ended:
            rows += [{**columns, **row} for row in stop_rows(study, ended[path])]
        if study.stages.export.reported and path.startswith("desnets/"):
            rows += [{**columns, **row} for row in file_rows(results / "exported" / path)]
    for task, settings in study.tasks.items():
        folder = results / "data" / settings.instructions
        read_manifest(folder)
        trained = results / "data" / (settings.train or settings.instructions)
        rows += [{**row, "task": task} for row in guesses(settings, folder, trained)]
    vocabulary = study.architecture.vocabulary
    rows += [{"init": UNIFORM, "task": corpus, **uniform_row(vocabulary)} for corpus in study.perplexity]
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(seed=study.seed)
    return frame.astype({"params": "Int64", "tokens": "Int64"})


def file_rows(folder: Path) -> Iterator[dict]:
    """Sizes and speeds of a model's GGUF files: task (the type), metric, value."""
    found = read_exports(folder)
    for type, size in found.bytes.items():
        values = {"bytes": size, **found.speeds.get(type, {})}
        yield from ({"task": type, "metric": name, "value": values[name]} for name in FILE_METRICS if name in values)


def stop_rows(study: Study, stop: Stop) -> Iterator[dict]:
    """Tokens that a recovery took until it was good enough: task (the corpus), metric, value; none where it was not."""
    if stop.reached:
        yield {"task": study.stages.recover.corpus, "metric": TO_RECOVER, "value": stop.tokens}


def uniform_row(vocabulary: int) -> dict:
    """What a uniform guess scores on text: metric, value."""
    return {"metric": "loss", "value": uniform_loss(vocabulary)}


def _alpha(assembled: Path) -> float | None:
    """The alpha that a DesNet was assembled with, found by `search` or not; the mean of one per layer."""
    alpha = read_manifest(assembled).get("alpha")
    return sum(alpha) / len(alpha) if isinstance(alpha, list) else alpha
