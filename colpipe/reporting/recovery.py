"""How DesNets recover: loss along the tokens, the tokens that a loss takes, loss against size."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from colpipe.config.layout import Layout
from colpipe.config.study import Study
from colpipe.reporting.figures import loss_curve

Curve = Sequence[tuple[int, float]]  # (tokens, loss in nats per token), by tokens


class Comparison(NamedTuple):
    """When one method to make a DesNet is as good as the random one is in the end.

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
    models = {path: columns for path, columns in Layout(study).models.items() if columns.get("tokens")}
    for path, columns in models.items():
        longest = max(other["tokens"] for other in models.values() if other["desnet"] == columns["desnet"])
        curve = loss_curve(results / path) if columns["tokens"] == longest else []
        if curve:
            label = method_label(study, columns["init"], columns["ancestor"])
            panels.setdefault(columns["desnet"], {})[label] = curve
    return panels


def method_label(study: Study, init: str, ancestor: str) -> str:
    """How a DesNet is made, or what it is scored on, with its ancestor where the study has several."""
    return f"{init}, {ancestor}" if ancestor and len(study.ancestors) > 1 else init


def compare_with_random(study: Study, panels: Mapping[str, Mapping[str, Curve]]) -> list[Comparison]:
    """For every DesNet with a random baseline, when each other method reaches the loss that it is published with."""
    random = [name for name, entry in study.initialisers.items() if entry.kind == "rand"]
    found = []
    for desnet, methods in panels.items():
        if baseline := next((methods[name] for name in random if name in methods), None):
            keeps_best = study.stages.recover and study.stages.recover.keep == "loss"
            target = min(loss for _, loss in baseline) if keeps_best else baseline[-1][1]
            of_baseline = tokens_until(baseline, target)
            for label, curve in methods.items():
                if label not in random:
                    found.append(Comparison(desnet, label, target, tokens_until(curve, target), of_baseline))
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
