"""LInit and the other initialisers, for a notebook or a script; the stage `assemble` makes the same models.

import colpipe
model = colpipe.linit("gpt2", "gpt2-medium", {"layers": 14, "heads": 12, "hidden": 768})
colpipe.linit("gpt2", "gpt2-medium", "220M", method="nested", out="desnet")
colpipe.linit(small, large, shape, alpha="search", score=my_loss, out="desnet")
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colpipe.config.parts import Architecture, Shape
from colpipe.config.sizing import Budget, Endpoint, automatic_alpha, plan_shape
from colpipe.errors import ColpipeError
from colpipe.jobs import artifacts
from colpipe.learngene import initialisers
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.inheritance import Inheritance, inheritance
from colpipe.learngene.linit import linit as interpolate
from colpipe.learngene.search import best, sweep
from colpipe.learngene.tokenizers import require_same_tokenizer
from colpipe.learngene.weights import Weights, copy_companions


def linit(
    smaller,
    larger,
    shape: Mapping[str, int] | Shape | str,
    alpha: float | Sequence[float] | str = "auto",
    method: str = "paper",
    compensate: float = 0.0,
    out: str | Path | None = None,
    score: Callable | None = None,
):
    """A DesNet interpolated from two neighbours (§3.4).

    Args:
        smaller, larger: model folders, or loaded transformers models, of one family and tokenizer.
        shape: layers, heads, hidden and, where the family has them, kv_heads, ffn, head_dim; what a mapping leaves out
            follows the larger neighbour (head_dim, queries per key/value head, ffn in proportion to hidden). Or parameters,
            `"220M"`, for the shape between the neighbours that has as many, within 1 %.
        alpha: weight of the smaller neighbour: a number, one per layer, `auto` (by parameter counts), or `search` (the
            best of a grid of alpha and compensation by `score`).
        method: `paper`, `nested`, `lossless` or `aligned`; `cut` takes the shape out of the larger, the folder of an elastic
            member, as it was trained there: alpha, compensate and the smaller have no part in it.
        compensate: 0 to 1, exponent of the compensation of the larger's norm gains.
        out: folder to write; None returns the model.
        score: loss of a model, lower is better; for `search`.

    Returns:
        A stock transformers model, or the path of its folder.

    Raises:
        ColpipeError: the neighbours or the shape do not fit; the message names the axis and both sizes.
    """
    small, large = Weights(smaller), Weights(larger)
    require_same_tokenizer(small, large)
    shape = planned(shape, small, large) if isinstance(shape, str) else shape
    target, arguments = target_sizes(shape, large, small), _inherited(small, large)
    if method == "cut":
        return _finish(cut(large, target, _elastic(large)), {"larger": larger}, out, kind="linit")
    if alpha == "search":
        if score is None:
            raise ColpipeError("alpha 'search' needs score=, a function that gives a model's loss")
        small, large = Weights(loaded(smaller)), Weights(loaded(larger))
        chosen = best(sweep(small, large, [target], score, methods=[method], **arguments))
        alpha, compensate = chosen["alpha"], chosen["compensate"]
    elif alpha == "auto":
        alpha = automatic_alpha(_parameters(small), _parameters(large), _parameters(large, target))
    assembly = interpolate(small, large, target, alpha, method, compensate, **arguments)  # type: ignore[arg-type]  # refuses words
    return _finish(assembly, {"smaller": smaller, "larger": larger}, out, kind="linit")


def initialise(
    kind: str,
    source,
    shape: Mapping[str, int] | Shape,
    method: str = "paper",
    select: str = "even",
    seed: int = 0,
    out: str | Path | None = None,
):
    """A model by one of the other initialisers, all from one source.

    Args:
        kind: `rand` (only the source's configuration is used), `single` (expand the smaller neighbour), `subset` (cut the
            larger), `auto-learngene` and `vanilla-learngene` (layers of the ancestor), `hypercloning`.
        source: model folder or loaded transformers model.
        shape: as in `linit`.
        method: of `single`: `paper` or `lossless`.
        select: of `subset`: the `first` layers, or `even`ly spaced ones.
        seed: of random weights.
        out: folder to write; None returns the model.

    Returns:
        A stock transformers model, or the path of its folder.

    Raises:
        ColpipeError: an unknown kind, or a shape that cannot be made from the source.
    """
    weights = Weights(source)
    assembly = initialisers.make(kind, weights, target_sizes(shape, weights), method, select, seed)
    return _finish(assembly, {"source": source}, out, kind=kind, seed=seed)


def planned(parameters: str, small: Weights, large: Weights) -> Shape:
    """The shape of this many parameters (`220M`) between two neighbours.

    Raises:
        ColpipeError: it does not lie between them, or nothing comes within 1 %.
    """
    size, ends, counts = Budget(params=parameters).parameters, [], []
    for weights in (small, large):
        axes = {"layers": "layer", "heads": "head", "hidden": "hidden", "ffn": "ffn", "kv_heads": "group"}
        sizes = {name: weights.sizes[axis] for name, axis in axes.items()}
        ends.append(Endpoint(weights.name, Shape(**sizes, head_dim=weights.sizes["head_dim"])))
        counts.append(_parameters(weights))
    if not counts[0] <= size <= counts[1]:
        raise ColpipeError(
            f"{parameters}: the neighbours have {counts[0]:,} and {counts[1]:,} parameters; ask between them"
        )
    sizes = target_sizes({"layers": 1, "heads": 1, "hidden": 1}, large, small)
    architecture = Architecture(
        family=large.family.name, vocabulary=sizes["vocabulary"], positions=sizes["position"], tied=large.tied
    )
    smaller, larger = ends
    return plan_shape(architecture, smaller, larger, size)


def target_sizes(shape: Mapping[str, int] | Shape, larger: Weights, *others: Weights) -> dict[str, int]:
    """Size of every axis of a shape, what it leaves out taken from a source; the vocabulary is cropped to the smallest."""
    given = dict(shape.model_dump() if isinstance(shape, Shape) else shape)
    sizes = larger.sizes
    if unknown := set(given) - set(Shape.model_fields):
        raise ColpipeError(f"shape: {', '.join(sorted(unknown))}: unknown; a shape has {', '.join(Shape.model_fields)}")
    if missing := {"layers", "heads", "hidden"} - set(given):
        raise ColpipeError(f"shape: {', '.join(sorted(missing))}: missing")
    own_dim = "head_dim" in larger.family.keys
    hidden, heads = given["hidden"], given["heads"]
    groups = given.get("kv_heads") or (heads // sizes["query"] if "group" in larger.family.keys else heads)
    return {
        "vocabulary": min(weights.sizes["vocabulary"] for weights in (larger, *others)),
        "position": min(weights.sizes["position"] for weights in (larger, *others)),
        "layer": given["layers"],
        "hidden": hidden,
        "qkv": 3,
        "head": heads,
        "group": max(groups, 1),
        "query": heads // max(groups, 1),
        "head_dim": given.get("head_dim") or (sizes["head_dim"] if own_dim else hidden // heads),
        "ffn": given.get("ffn") or round(hidden * sizes["ffn"] / sizes["hidden"]),
    }


def scan(
    smaller,
    larger,
    shapes: Iterable[Mapping[str, int] | Shape],
    score: Callable,
    alphas: Sequence[float | str] = ("auto",),
    compensations: Sequence[float] = (0.0,),
    methods: Sequence[str] = ("nested",),
) -> list[dict]:
    """Assemble and score every combination, the neighbours loaded once; for architecture search.

    Args:
        shapes: as in `linit`.
        score: loss of a model, lower is better.
        alphas: numbers, or `auto`.

    Returns:
        One row per candidate, best first: shape, parameters, method, alpha, compensate, loss.
    """
    small, large = Weights(smaller), Weights(larger)
    require_same_tokenizer(small, large)
    arguments = _inherited(small, large) | ({"elastic": _elastic(large)} if "cut" in methods else {})
    targets = [target_sizes(shape, large, small) for shape in shapes]
    small, large = Weights(loaded(smaller)), Weights(loaded(larger))
    rows = sweep(small, large, targets, score, alphas, compensations, methods, **arguments)
    return sorted(rows, key=lambda row: row["loss"])


def loaded(source):
    """A loaded model stays as it is; a folder is loaded."""
    if not isinstance(source, str | os.PathLike):
        return source
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, local_files_only=True)


def _inherited(small: Weights, large: Weights) -> dict[str, Any]:
    """What the neighbours' manifests say about their layers; nothing for loaded models."""
    known = inheritance(large.folder) if large.folder else Inheritance()
    layer_map = inheritance(small.folder, large.folder).layer_map if small.folder and large.folder else None
    return {"layer_map": layer_map, "ranking": known.ranking}


def _elastic(large: Weights) -> ElasticMember:
    known = inheritance(large.folder) if large.folder else Inheritance()
    return known.require_elastic(large.name)


def _parameters(weights: Weights, sizes: Mapping[str, int] | None = None) -> int:
    return weights.family.parameters(sizes or weights.sizes, weights.tied)


def _finish(assembly: Assembly, sources: Mapping[str, object], out: str | Path | None, **more):
    """The loaded model, or a published folder with a manifest."""
    if out is None:
        return assembly.load()
    out = Path(out)
    if out.exists() and not (out / artifacts.MANIFEST).exists() and any(out.iterdir()):
        raise ColpipeError(f"{out}: holds files and no {artifacts.MANIFEST}; give a new folder")
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    assembly.write(staging)
    folders = {name: source for name, source in sources.items() if isinstance(source, str | os.PathLike)}
    for folder in folders.values():
        copy_companions(Path(folder), staging)
    manifest = {
        "stage": "assemble",
        "sources": {name: str(source) if name in folders else "a loaded model" for name, source in sources.items()},
        "parents": {name: artifacts.fingerprint(Path(folder)) for name, folder in folders.items()},
        "parameters": assembly.parameters,
        **assembly.details,
        **more,
    }
    artifacts.publish(staging, out, manifest, {})
    return out
