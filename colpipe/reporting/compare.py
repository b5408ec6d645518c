"""Several studies that differ in their seed, as one table: mean and spread."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from colpipe.config.parts import tokens_label
from colpipe.errors import ColpipeError
from colpipe.reporting.figures import loss_curve
from colpipe.reporting.summary import FILE_METRICS, UNIFORM

MODEL = ["ancestor", "desnet", "params", "init", "tokens"]
KEYS = [*MODEL, "corpus"]


def losses(results: Sequence[Path]) -> pd.DataFrame:
    """Held-out loss of every model of several studies, nats per token: `KEYS`, seed, alpha, loss.

    Raises:
        ColpipeError: a study has no summary yet, or two have the same seed.
    """
    frame = summaries(results)
    found = frame[(frame.metric == "loss") & (frame.init != UNIFORM)].rename(
        columns={"task": "corpus", "value": "loss"}
    )
    return found[[*KEYS, "seed", "alpha", "loss"]].astype({"params": "Int64"}).reset_index(drop=True)


def vocabulary_of(results: Sequence[Path]) -> int | None:
    """That of the studies' models, by the loss of a uniform guess among their scores; None where none has it, or they
    differ."""
    frame = summaries(results)
    found = {round(math.exp(value)) for value in frame[(frame.metric == "loss") & (frame.init == UNIFORM)].value}
    return found.pop() if len(found) == 1 else None


def summaries(results: Sequence[Path]) -> pd.DataFrame:
    """The summaries of several studies, one below the other; `tokens` is -1 where there are none.

    Raises:
        ColpipeError: a study has no summary yet, or two have the same seed.
    """
    frames = []
    for folder in results:
        path = folder / "summary.csv"
        if not path.exists():
            raise ColpipeError(f"{path}: not found; finish the study first")
        frames.append(pd.read_csv(path, keep_default_na=False, na_values=[""]))
    both = pd.concat(frames, ignore_index=True).fillna({"ancestor": "", "desnet": "", "init": "", "tokens": -1})
    if twice := both[both.duplicated([*MODEL, "task", "metric", "seed"])].seed.unique().tolist():
        raise ColpipeError(f"several of {', '.join(map(str, results))} have the seed {twice[0]}; compare other seeds")
    return both


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model and of guessing: mean, sample standard deviation and number of seeds; sizes and speeds of
    files are no scores."""
    frame = frame[~frame.metric.isin(FILE_METRICS)]
    keys = [*MODEL, "task", "metric"]
    grouped = frame.groupby(keys, sort=False, dropna=False).value
    return grouped.agg(value="mean", deviation="std", seeds="count").reset_index()


def paper_tables(results: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Table or figure of the paper → its numbers over the seeds: mean, sample standard deviation and number of ours.

    Those that show curves or sizes are left out, and those that not all of the studies have.
    """
    found = {}
    for first in sorted(results[0].glob("paper/*/*.csv")):
        paths = [folder / first.relative_to(results[0]) for folder in results]
        if not all(path.exists() for path in paths):
            continue
        frame = pd.concat([pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in paths])
        if "made_of" in frame and "seed" in frame:
            keys = ["ancestor", "model", "init", "tokens", "task", "metric", "paper"]
            grouped = frame.groupby(keys, sort=False, dropna=False).ours
            numbers = grouped.agg(ours="mean", deviation="std", seeds="count").reset_index()
            found[first.stem] = numbers.assign(difference=numbers.ours - numbers.paper)
    return found


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per model: mean, sample standard deviation and number of seeds; the order of the studies is kept."""
    grouped = frame.groupby(KEYS, sort=False, dropna=False)
    return grouped.agg(
        alpha=("alpha", "mean"), loss=("loss", "mean"), deviation=("loss", "std"), seeds=("seed", "nunique")
    ).reset_index()


def wide(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per initialiser and ancestor, a column per DesNet and budget; the best of each column is bold."""
    built = frame[frame.tokens >= 0].copy()
    built["column"] = [f"{d}, {tokens_label(int(t))}" for d, t in zip(built.desnet, built.tokens, strict=True)]
    best = built.groupby("column").loss.transform("min")
    built["text"] = [
        _text(loss, deviation, loss == least)
        for loss, deviation, least in zip(built.loss, built.deviation, best, strict=True)
    ]
    table = built.pivot_table(
        index=["ancestor", "init"], columns="column", values="text", aggfunc="first", sort=False
    ).fillna("")
    return table.reset_index()


def curves_of(results: Sequence[Path], frame: pd.DataFrame) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """DesNet → initialiser → validation loss along the longest recovery, the mean over studies as far as all of them go."""
    longest = int(frame.tokens.max())
    panels: dict[str, dict] = {}
    for row in frame[frame.tokens == longest].itertuples() if longest > 0 else ():
        path = f"desnets/{row.ancestor or 'scratch'}/{row.desnet}/{row.init}/{tokens_label(longest)}"
        found = [loss_curve(folder / path) for folder in results]
        if all(found):
            label = f"{row.init}, {row.ancestor}" if row.ancestor else row.init
            shortest = min(map(len, found))  # seeds that `stop_at` ends do not end together
            panels.setdefault(row.desnet, {})[label] = _mean([curve[:shortest] for curve in found])
    return panels


def differences(frame: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Loss minus that of one method, seed by seed: what all methods of a seed share, its ancestor above all, drops out.

    Args:
        frame: a row per model and seed, with columns method, model, seed, loss.
        reference: the method that is taken off; None: the first.

    Returns:
        A row per method, a column per model that the reference has, too: mean ± sample standard deviation of the
        differences.

    Raises:
        ColpipeError: there is no such method.
    """
    reference = reference or frame.method.iloc[0]
    if reference not in set(frame.method):
        raise ColpipeError(f"--reference {reference!r}: not among {', '.join(map(repr, frame.method.unique()))}")
    first = frame[frame.method == reference].set_index(["model", "seed"]).loss
    beside = frame.join(first.rename("first"), on=["model", "seed"], how="inner")
    grouped = beside.assign(loss=beside.loss - beside["first"]).groupby(["method", "model"], sort=False).loss
    spread = grouped.agg(["mean", "std"]).reset_index()
    spread["text"] = [
        f"{mean:+.3f}" if pd.isna(std) else f"{mean:+.3f} ± {std:.3f}"
        for mean, std in zip(spread["mean"], spread["std"], strict=True)
    ]
    return spread.pivot_table(index="method", columns="model", values="text", aggfunc="first", sort=False).reset_index()


def by_size(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[tuple[int, float]]]]:
    """DesNets at 0 tokens by their parameters, where there are several.

    Args:
        frame: as `losses` has it. One seed counts, the one with the most DesNets: seeds differ by more than methods do, and
            a mean over other seeds at some sizes would be a jump in the curve.

    Returns:
        A row per DesNet, a column per method; method → (parameters, loss), smallest first. Methods with fewer than four
        DesNets are left out.
    """
    built = frame[frame.tokens == 0].assign(method=(frame.ancestor + " " + frame.init).str.strip())
    built = built[built.seed == built.seed.mode().min()]
    counts = built.groupby("method", sort=False).desnet.nunique()
    methods = counts[counts >= 4].index.tolist()
    chosen = built[built.method.isin(methods)].sort_values("params", kind="stable")
    table = chosen.pivot_table(index=["params", "desnet"], columns="method", values="loss", sort=False)
    curves = {method: list(zip(part.params, part.loss, strict=True)) for method, part in chosen.groupby("method")}
    return table.round(3).reset_index().fillna(""), {method: curves[method] for method in methods}


def chain_frame(results: Sequence[Path], frame: pd.DataFrame) -> pd.DataFrame:
    """The members of the chains, as `spread` has them, with what their distillation took and how its student answers.

    Returns:
        Columns ancestor, desnet, loss, deviation, seeds; `seconds` of the job and, where answers were scored, `rouge_l`
        of the last evaluation, means over studies.
    """
    members = frame[frame.init == "distilled"].drop(columns=["init", "tokens", "alpha"])
    rows = []
    for row in members.itertuples():
        folders = [folder / "chain" / row.ancestor / row.desnet for folder in results]
        seconds = [json.loads((folder / "run.json").read_text())["seconds"] for folder in folders]
        scores = [loss_curve(folder, "step", "rouge_l") for folder in folders] if _scored(folders[0]) else []
        last = [curve[-1][1] for curve in scores if curve]
        rows.append({"seconds": sum(seconds) / len(seconds), "rouge_l": sum(last) / len(last) if last else None})
    return pd.concat([members.reset_index(drop=True), pd.DataFrame(rows)], axis="columns")


def chain_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per ancestor (method to distil), for each member its held-out loss, Rouge-L of its answers and seconds; empty
    where a chain does not have it."""
    table = pd.DataFrame({"chain": frame.ancestor.drop_duplicates()})
    for member in frame.desnet.drop_duplicates():
        own = frame[frame.desnet == member].set_index("ancestor")
        least = own.loss.min()
        columns = {
            "loss": [_text(loss, spread, loss == least) for loss, spread in zip(own.loss, own.deviation, strict=True)]
        }
        if own.rouge_l.notna().all():
            columns["Rouge-L"] = [f"{value:.1f}" for value in own.rouge_l]
        columns["seconds"] = [f"{value:.0f}" for value in own.seconds]
        for name, texts in columns.items():
            table[f"{member}, {name}"] = table.chain.map(dict(zip(own.index, texts, strict=True))).fillna("")
    return table


def chain_curves(results: Sequence[Path], frame: pd.DataFrame) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Member → ancestor (method to distil) → held-out cross-entropy along distillation, the mean over studies."""
    panels: dict[str, dict] = {}
    for row in frame.itertuples():
        folders = [folder / "chain" / row.ancestor / row.desnet for folder in results]
        found = [loss_curve(folder, "step", "cross_entropy") for folder in folders]
        if all(found):
            panels.setdefault(row.desnet, {})[row.ancestor] = _mean(found)
    return panels


def along_table(panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> pd.DataFrame:
    """A row per member and chain, a column per step at which they were measured: the first, the last, and those between at
    1, 2, 4, 8, … evaluations; the least of each member's in bold.

    Args:
        panels: as `chain_curves` gives them.
    """
    rows = []
    for member, curves in panels.items():
        least: dict[int, float] = {}
        for step, loss in (point for curve in curves.values() for point in curve):
            least[step] = min(loss, least.get(step, loss))
        for chain, curve in curves.items():
            shown = {0, len(curve) - 1, *(2**power for power in range(len(curve).bit_length()))}
            points = [point for place, point in enumerate(curve) if place in shown]
            cells = {f"{step} steps": _text(loss, math.nan, loss == least[step]) for step, loss in points}
            rows.append({"member": member, "chain": chain, **cells})
    table = pd.DataFrame(rows).fillna("")
    steps = sorted(table.columns[2:], key=lambda name: int(name.split()[0]))
    return table[["member", "chain", *steps]]


def _scored(folder: Path) -> bool:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return any("rouge_l" in json.loads(line) for line in lines)


def _mean(curves: Sequence[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Point by point."""
    return [(points[0][0], sum(value for _, value in points) / len(points)) for points in zip(*curves, strict=True)]


def _text(loss: float, deviation: float, is_best: bool) -> str:
    text = f"{loss:.3f}" if pd.isna(deviation) else f"{loss:.3f} ± {deviation:.3f}"
    return f"**{text}**" if is_best else text
