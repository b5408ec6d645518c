"""How DesNets recover: loss along the tokens, where `stop_at` ends it, the tokens that a loss takes, loss against size."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from colpipe.config.layout import Layout
from colpipe.config.study import Study
from colpipe.jobs.artifacts import read_manifest
from colpipe.reporting.figures import loss_curve

Curve = Sequence[tuple[int, float]]  # (tokens, loss in nats per token), by tokens


class Stop(NamedTuple):
    """Where a recovery with `stop_at` ended, as its manifest says: losses in nats per token.

    Attributes:
        at: `stop_at`, a share of the ancestor's quality or a loss.
        target: the validation loss that this asks for.
        ancestor: that of the ancestor; None where `at` is a loss.
        reached: whether an evaluation was not above the target.
        loss: of the first one that was not, or the lowest.
        tokens: that were learnt from.
        of: those of the whole budget, all passes over it.
    """

    at: float
    target: float
    ancestor: float | None
    reached: bool
    loss: float
    tokens: int
    of: int


class Comparison(NamedTuple):
    """When one method to make a DesNet is as good as the random one is in the end, or as `stop_at` asks if that is less.

    Attributes:
        target: that loss, nats per token.
        tokens: recovery tokens that reach it; None where its own recovery does not.
        baseline: those of the random one.
    """

    desnet: str
    method: str
    target: float
    tokens: float | None
    baseline: float

    @property
    def speed_up(self) -> float | None:
        """Tokens of the random one over its own; infinite where it needs none, None where it does not get there."""
        if self.tokens is None:
            return None
        return self.baseline / self.tokens if self.tokens else float("inf")


def recovery_curves(study: Study, results: Path) -> dict[str, dict[str, Curve]]:
    """DesNet → method → validation loss along its longest recovery."""
    panels: dict[str, dict[str, Curve]] = {}
    for path, desnet, label in _longest(study):
        if curve := loss_curve(results / path):
            panels.setdefault(desnet, {})[label] = curve
    return panels


def _longest(study: Study) -> Iterator[tuple[str, str, str]]:
    """(path under the results, DesNet, method) of every longest recovery."""
    models = recovered(study)
    for path, columns in models.items():
        if columns["tokens"] == max(each["tokens"] for each in models.values() if each["desnet"] == columns["desnet"]):
            yield path, columns["desnet"], method_label(study, columns["init"], columns["ancestor"])


def recovered(study: Study) -> dict[str, dict]:
    """Path under the results → columns, of every DesNet that is recovered."""
    return {path: columns for path, columns in Layout(study).models.items() if columns.get("tokens")}


def stops(study: Study, results: Path) -> dict[str, Stop]:
    """Path under the results → where its recovery ended; empty for a study without `stop_at`."""
    if not (study.stages.recover and study.stages.recover.stop_at):
        return {}
    return {path: Stop(**read_manifest(results / path)["stopped"]) for path in recovered(study)}


def levels(study: Study, found: Mapping[str, Stop]) -> dict[str, dict[str, float]]:
    """DesNet → what its curves are read against, in words → loss: where recovery stops, and the ancestor.

    Args:
        found: of `stops`.
    """
    models = recovered(study)
    panels: dict[str, dict[str, float]] = {}
    for path, stop in found.items():
        ancestor = models[path]["ancestor"] or next(iter(study.ancestors))  # random ones are measured against the first
        marks = panels.setdefault(models[path]["desnet"], {})
        if stop.ancestor is None:
            marks[f"stop_at {stop.at:g}"] = stop.target
        else:
            marks[method_label(study, f"stop_at {stop.at:g}", ancestor)] = stop.target
            marks[method_label(study, "the ancestor", ancestor)] = stop.ancestor
    return panels


def method_label(study: Study, init: str, ancestor: str) -> str:
    """How a DesNet is made, or what it is scored on, with its ancestor where the study has several."""
    return f"{init}, {ancestor}" if ancestor and len(study.ancestors) > 1 else init


def compare_with_random(
    study: Study, panels: Mapping[str, Mapping[str, Curve]], found_stops: Mapping[str, Stop] | None = None
) -> list[Comparison]:
    """For every DesNet with a random baseline, when each other method reaches the loss that it is published with.

    Args:
        found_stops: of `stops`: a method that ended where `stop_at` asks is not asked for more than that.
    """
    targets = {
        (desnet, label): found_stops[path].target
        for path, desnet, label in _longest(study)
        if path in (found_stops or {})
    }
    random = [name for name, entry in study.initialisers.items() if entry.kind == "rand"]
    found = []
    for desnet, methods in panels.items():
        if baseline := next((methods[name] for name in random if name in methods), None):
            keeps_best = study.stages.recover and study.stages.recover.keep == "loss"
            target = min(loss for _, loss in baseline) if keeps_best else baseline[-1][1]
            for label, curve in methods.items():
                if label not in random:
                    asked = max(target, targets.get((desnet, label), target))
                    tokens = tokens_until(baseline, asked)
                    found.append(Comparison(desnet, label, asked, tokens_until(curve, asked), tokens))
    return found


def tokens_until(curve: Curve, target: float) -> float | None:
    """Tokens at which a curve first is at or below a loss, on straight lines between its points; None where it never is."""
    if curve[0][1] <= target:
        return curve[0][0]
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return None


def loss_by_size(study: Study, summary: pd.DataFrame) -> dict[str, dict[str, Curve]]:
    """Corpus, with the ancestor where the study has several → initialiser → (parameters, held-out loss).

    Of the chain and of DesNets at 0 tokens, where these have several sizes. Random ones are left out: they would set the
    scale.
    """
    losses = summary[(summary.metric == "loss") & summary.task.isin(study.perplexity)].dropna(subset="params")
    panels: dict[str, dict[str, Curve]] = {}
    for (task, init, ancestor), part in losses.groupby(["task", "init", "ancestor"], sort=False):
        chain = init == "distilled"
        built = init in study.initialisers and study.initialisers[init].kind != "rand"
        if (built or chain) and part.params.nunique() > 1 and len(study.desnets) > 1:
            chosen = (part if chain else part[part.tokens == 0]).sort_values("params")
            label, panel = "chain" if chain else init, method_label(study, task, ancestor)
            panels.setdefault(panel, {})[label] = list(zip(chosen.params, chosen.value, strict=True))
    return panels
