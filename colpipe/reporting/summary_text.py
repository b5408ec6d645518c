"""The summary as people read it: a table of at most `WIDTH` columns, what stands below it, and DesNets in words."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from colpipe.config.parts import tokens_label
from colpipe.config.stages import Task
from colpipe.config.study import Study
from colpipe.data.files import some
from colpipe.evaluation.scores import LIKELIHOODS
from colpipe.evaluation.uniform import is_broken, uniform_guess
from colpipe.reporting.family import KEYS
from colpipe.reporting.kept import ALL, DIFFERENCE, KEPT
from colpipe.reporting.recovery import recovered
from colpipe.reporting.summary import FILE_METRICS, TO_RECOVER, UNIFORM

WIDTH = 100  # columns of the table as text
MARGIN = "kept ±"
MOST = 12  # DesNets that are told of in words


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
    below += [*remarks(study, summary), *kept_remarks(summary), *more, *in_words(study, summary)]
    return "\n".join([*_wrapped(notes), *_lines(table), *_wrapped(below)])


def in_words(study: Study, summary: pd.DataFrame) -> Iterator[str]:
    """A line for the best of each DesNet by mean held-out loss, and what it has of the model that its chain descends from;
    none of random ones, and none where there are more than `MOST`."""
    texts = summary[(summary.metric == "loss") & summary.task.isin(study.perplexity) & (summary.init != UNIFORM)]
    losses = texts.groupby(KEYS, dropna=False, sort=False).value.mean().reset_index()
    kept = summary[(summary.task == ALL) & (summary.metric == KEPT)]
    shares = {(row.ancestor, row.desnet, row.init, row.tokens): row for row in kept.itertuples()}
    ended = summary[summary.metric == TO_RECOVER]
    took = {(row.ancestor, row.desnet, row.init, row.tokens): int(row.value) for row in ended.itertuples()}
    made = losses[losses.tokens.notna() & (losses.ancestor != "")]
    best = made.loc[made.groupby(["ancestor", "desnet"], sort=False).value.idxmin()]
    for row in best.itertuples() if len(best) <= MOST else ():
        ancestor = study.ancestors[row.ancestor]
        above = (row.ancestor, "bridge") if ancestor.bridge else ("", ancestor.model)
        origin = losses[(losses.ancestor == above[0]) & (losses.desnet == above[1]) & losses.tokens.isna()]
        whose = "its ancestor's bridge" if ancestor.bridge else "its ancestor"
        name = " ".join(filter(None, (row.ancestor if len(study.ancestors) > 1 else "", row.desnet)))
        which = (row.ancestor, row.desnet, row.init, row.tokens)
        trained = f"{took[which]:,} of " if which in took else ""  # where `stop_at` ended it
        tokens = f"{trained}{tokens_label(int(row.tokens))} tokens"
        said = f"{name} ({row.init}, {tokens}): {_size(row.params)} parameters"
        if len(origin):
            [whole] = origin.itertuples()
            share = f", {100 * row.params / whole.params:.0f} % of {whose}" if pd.notna(whole.params) else ""
            said += f"{share}; loss {row.value:.3f}, {abs(row.value - whole.value):.3f} "
            said += f"{'above' if row.value > whole.value else 'below'} {'it' if share else whose}"
        if own := shares.get(which):
            said += f"; keeps {own.value:.0f} % ±{(own.high - own.low) / 2:.0f} of its lead over chance"
        yield f"{said}."


def _size(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f}M" if parameters >= 1e6 else f"{parameters:,}"


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
