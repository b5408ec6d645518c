"""Many candidates from one pair of neighbours, scored without training: alpha and compensation, or whole architectures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from colpipe.config.constants import SEARCH_ALPHAS, SEARCH_COMPENSATIONS
from colpipe.config.sizing import automatic_alpha
from colpipe.errors import ColpipeError
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.linit import linit
from colpipe.learngene.weights import Weights


def sweep(
    smaller: Weights,
    larger: Weights,
    targets: Iterable[Mapping[str, int]],
    score: Callable[[object], float],
    alphas: Sequence[float | str] = SEARCH_ALPHAS,
    compensations: Sequence[float] = SEARCH_COMPENSATIONS,
    methods: Sequence[str] = ("nested",),
    elastic: ElasticMember | None = None,
    fitted: Callable[[Mapping[str, int]], Assembly] | None = None,
    **arguments,
) -> list[dict]:
    """Assemble and score every combination; the neighbours are read once, if they are loaded models.

    Args:
        targets: sizes of every axis of each candidate.
        score: loss of a transformers model, lower is better.
        alphas: numbers, or `auto`.
        elastic, fitted: for methods `cut` and `fit`, which have neither alpha nor compensation: how submodels of the larger
            are taken; the larger's fitted cut of some sizes.
        arguments: layer_map and ranking, as `linit` takes them.

    Returns:
        One row per candidate: its shape, parameters, method, alpha, compensate, loss.

    Raises:
        ColpipeError: a candidate's loss is not finite, method `cut` has no elastic member, or `fit` no text.
    """
    rows = []
    small, large = (weights.family.parameters(weights.sizes, weights.tied) for weights in (smaller, larger))
    for target in targets:
        count = larger.family.parameters(target, larger.tied)
        some = compensations if target["hidden"] < larger.sizes["hidden"] else compensations[:1]
        for method, alpha, compensate in candidates(methods, alphas, some):
            if method == "cut":
                if elastic is None:
                    raise ColpipeError(f"{larger.name}: method 'cut' needs an elastic member, which this model is not")
                model = cut(larger, target, elastic).load()
            elif method == "fit":
                if fitted is None:
                    raise ColpipeError(f"{larger.name}: method 'fit' needs a text to fit on")
                model = fitted(target).load()
            else:
                alpha = automatic_alpha(small, large, count) if alpha == "auto" else alpha
                model = linit(smaller, larger, target, alpha, method, compensate, **arguments).load()
            loss = score(model)
            if not math.isfinite(loss):
                where = f"layers {target['layer']}, hidden {target['hidden']}, alpha {alpha}, compensate {compensate}"
                raise ColpipeError(
                    f"{smaller.name} and {larger.name}: score gave {loss} for {method} ({where}), no number to compare"
                )
            rows.append(
                {
                    "layers": target["layer"],
                    "heads": target["head"],
                    "kv_heads": target["group"],
                    "hidden": target["hidden"],
                    "ffn": target["ffn"],
                    "parameters": count,
                    "method": method,
                    "alpha": alpha,
                    "compensate": compensate,
                    "loss": loss,
                }
            )
    return rows


def candidates(methods: Sequence[str], alphas: Sequence, compensations: Sequence[float]) -> Iterator[tuple]:
    """Every (method, alpha, compensate)."""
    for method in methods:
        if method in ("cut", "fit"):
            yield method, None, None
        else:
            yield from ((method, alpha, compensate) for compensate in compensations for alpha in alphas)


def best(rows: Sequence[Mapping]) -> Mapping:
    """The row with the lowest loss; of equal ones the first."""
    return min(rows, key=lambda row: row["loss"])
