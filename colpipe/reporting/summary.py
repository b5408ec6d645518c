"""The summary table: one row per model, task and metric, and guessing beside it."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from colpipe.config.layout import Layout
from colpipe.config.parts import tokens_label
from colpipe.config.stages import Task
from colpipe.config.study import Study
from colpipe.data.files import some
from colpipe.data.rows import read_rows
from colpipe.evaluation.scores import LIKELIHOODS, Values, guessing, interval, percent
from colpipe.evaluation.uniform import is_broken, uniform_guess, uniform_loss
from colpipe.jobs.artifacts import read_manifest
from colpipe.reporting.exports import read_exports
from colpipe.reporting.kept import ALL, DIFFERENCE, KEPT, chances, comparisons
from colpipe.reporting.recovery import Stop, recovered, stops

COLUMNS = ["ancestor", "desnet", "params", "init", "alpha", "tokens", "task", "metric", "value", "low", "high", "seed"]
WIDTH = 100  # columns of the table as text
MARGIN = "kept ±"
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


def guesses(task: Task, folder: Path, trained: Path) -> Iterator[dict]:
    """What a task scores without reading the question: rows of `init` (`majority` or `chance`), metric, value, low, high.

    Args:
        folder: prepared instructions with the test rows.
        trained: those with the training rows.
    """
    train, test = read_rows(trained, "train") if task.fine_tune else [], read_rows(folder, "test")
    found: dict[str, Values] = guessing(train, test) if task.max_new_tokens else {}
    if task.likelihood and "choices" in test[0]:
        chance = chances(test).tolist()
        found["chance"] = {**found.get("chance", {}), "likelihood": chance, "likelihood_normalised": chance}
    for init, values in found.items():
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
    """What stands once beside losses: that of a uniform guess, and which models are worse; and of recoveries that may end
    early, which did not."""
    return [*_loss_remarks(study, summary), *stop_remarks(study, summary)]


def stop_remarks(study: Study, summary: pd.DataFrame) -> Iterator[str]:
    """A line on recoveries that `stop_at` ends: how many it did, and the others by name."""
    at, every = study.stages.recover and study.stages.recover.stop_at, recovered(study).values()
    if not at or not every:
        return
    keys = ["ancestor", "desnet", "init", "tokens"]
    ended = {tuple(row) for row in summary.loc[summary.metric == TO_RECOVER, keys].itertuples(index=False)}
    others = [columns for columns in every if tuple(columns[key] for key in keys) not in ended]
    goal = f"{at:g} of the ancestor's quality" if at <= 1 else f"a loss of {at:g}"
    line = f"Recovery stops at {goal} on validation text: {len(every) - len(others):,} of {len(every):,} got there"
    names = [_named({**columns, "tokens": tokens_label(columns["tokens"])}) for columns in others]
    yield f"{line}, not within their budgets: {some(names)}." if others else f"{line}."


def _named(columns: Mapping) -> str:
    """A model in words: its ancestor, name, initialiser and tokens, as far as it has them."""
    return " ".join(columns[key] for key in ("ancestor", "desnet", "init", "tokens") if columns[key])


def _loss_remarks(study: Study, summary: pd.DataFrame) -> list[str]:
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
    """The table that people read: a row per model, a column per main metric of each task.

    Of scores by log-likelihood, those by which models are compared with their ancestor, where that is above chance; and what
    a model keeps over all of these tasks, `kept`, with half the width of its interval, `kept ±`.
    """
    compared, at_chance = compared_metrics(summary), tasks_at_chance(summary)
    over_all = summary[(summary.task == ALL) & (summary.metric == KEPT)]
    half = over_all.assign(metric=MARGIN, value=(over_all.high - over_all.low) / 2)
    summary = pd.concat([summary, half], ignore_index=True) if len(half) else summary
    columns = [(corpus, "loss") for corpus in study.perplexity] + [(ALL, KEPT), (ALL, MARGIN)]
    for task in study.tasks:
        likelihoods = [] if task in at_chance else [compared.get(task, "likelihood")]
        columns += [(task, metric) for metric in ("rouge_l", "accuracy", *likelihoods)]
    columns += [(type, metric) for type in study.stages.export.types for metric in FILE_METRICS]
    keys = ["ancestor", "desnet", "params", "init", "alpha", "tokens"]
    wide = summary.pivot_table(
        index=keys, columns=["task", "metric"], values="value", dropna=False, observed=True, sort=False
    )
    wide = wide.dropna(how="all").dropna(how="all", axis="columns")
    wide = wide[[column for column in columns if column in wide.columns]]
    guess = wide.index.get_level_values("desnet").isna()
    wide = wide[~guess | wide.notna().any(axis="columns")]
    wide.columns = [
        metric if task == ALL else f"{task} {_heading(metric, study.tasks.get(task))}" for task, metric in wide.columns
    ]
    return wide.reset_index()


def compared_metrics(summary: pd.DataFrame) -> dict[str, str]:
    """Task → the metric by which models are compared with their ancestor, where there are any."""
    found = summary[summary.metric.str.endswith(DIFFERENCE)]
    return {task: metric.removesuffix(DIFFERENCE) for task, metric in zip(found.task, found.metric, strict=True)}


def tasks_at_chance(summary: pd.DataFrame) -> list[str]:
    """Tasks on which no ancestor is above chance by log-likelihood."""
    kept = set(summary[summary.metric == KEPT].task)
    return [task for task in compared_metrics(summary) if task not in kept]


def kept_remarks(summary: pd.DataFrame) -> list[str]:
    """What stands once below the table: what is kept of what, and what is not in there."""
    at_chance, lines = tasks_at_chance(summary), []
    if (summary.task == ALL).any():
        kept = summary[(summary.metric == KEPT) & (summary.task != ALL)]
        by_ancestor = {name: ", ".join(dict.fromkeys(tasks)) for name, tasks in kept.groupby("ancestor").task if name}
        same = set(by_ancestor.values()) or {", ".join(dict.fromkeys(kept.task))}
        over = same.pop() if len(same) == 1 else "; ".join(f"{tasks} ({name})" for name, tasks in by_ancestor.items())
        lines.append(
            "Kept: the part of the ancestor's lead over chance, by log-likelihood, in percent ± half its 95 % interval; "
            f"over {over}."
        )
    if at_chance:
        lines.append(f"At chance for the ancestor, by log-likelihood, so in summary.csv only: {', '.join(at_chance)}.")
    return lines


def _heading(metric: str, task: Task | None) -> str:
    if metric in LIKELIHOODS:
        return "likelihood" if task and task.max_new_tokens else "acc"
    return FILE_METRICS[metric][0] if metric in FILE_METRICS else metric.replace("_", "-")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as people read them; blanks where there is none."""
    shown = table.drop(columns=[MARGIN], errors="ignore")
    shown["params"] = [f"{value:,}" if pd.notna(value) else "" for value in table["params"]]
    shown["tokens"] = [tokens_label(int(value)) if pd.notna(value) else "" for value in table["tokens"]]
    files = {heading: (unit, digits) for heading, unit, digits in FILE_METRICS.values()}
    for column in shown.columns[shown.columns.get_loc("alpha") :]:
        if column == KEPT:
            pairs = zip(table[KEPT], table[MARGIN], strict=True)
            shown[KEPT] = [f"{value:.0f} ±{half:.0f}" if pd.notna(value) else "" for value, half in pairs]
        elif column != "tokens":
            heading = column.partition(" ")[2]
            unit, digits = files.get(heading, (1, {"loss": 3, "acc": 1}.get(heading, 2)))
            shown[column] = [f"{value / unit:,.{digits}f}" if pd.notna(value) else "" for value in table[column]]
    return shown.fillna("")


def table_text(study: Study, summary: pd.DataFrame, more: Iterable[str] = ()) -> str:
    """The table that is printed at the end of a run and kept as summary.txt, no wider than `WIDTH` where names allow it.

    What is the same in all rows is said once above it; what does not fit is named below it, with the remarks and what
    `more` there is to say.
    """
    table = readable(compact(study, summary))
    values = {column: set(table[column]) - {""} for column in ("ancestor", "init", "alpha", "tokens")}
    constant = {column: found for column, found in values.items() if len(found) < 2}
    table = table.drop(columns=list(constant))
    left_out = []
    for column in _least_needed(list(table.columns)):
        if max(map(len, _lines(table))) <= WIDTH:
            break
        table = table.drop(columns=column)
        left_out.append(column)
    once = ", ".join(f"{column} {found.pop()}" for column, found in constant.items() if found)
    notes = [f"In all rows that have one: {once}."] if once else []
    below = [f"Too wide for this table, and in summary.csv: {', '.join(left_out)}."] if left_out else []
    below += [*remarks(study, summary), *kept_remarks(summary), *more]
    return "\n".join([*_wrapped(notes), *_lines(table), *_wrapped(below)])


def _least_needed(columns: Sequence[str]) -> list[str]:
    """Columns of metrics, first those that can best be missed: how fast prompts are read, what stands beside an accuracy,
    then the last ones."""
    metrics = [column for column in reversed(columns) if " " in column]
    read = [column for column in metrics if column.endswith(FILE_METRICS["prompt"][0])]
    beside = [
        column
        for metric in ("rouge-l", "likelihood")
        for column in metrics
        if column.endswith(f" {metric}") and f"{column.rpartition(' ')[0]} accuracy" in columns
    ]
    return list(dict.fromkeys([*read, *beside, *metrics]))


def _lines(table: pd.DataFrame) -> list[str]:
    """A table of texts, to the right; of `task metric`, the task stands above."""
    headers = [column.rpartition(" ")[::2] for column in table.columns]
    rows = [[above for above, _ in headers], [name for _, name in headers], *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _wrapped(lines: Sequence[str]) -> list[str]:
    return [
        part for line in lines for part in textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
