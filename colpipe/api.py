"""LInit and the other initialisers, for a notebook or a script; the stage `assemble` makes the same models.

import colpipe
model = colpipe.linit("gpt2", "gpt2-medium", {"layers": 14, "heads": 12, "hidden": 768})
colpipe.linit("gpt2", "gpt2-medium", "220M", method="nested", out="desnet")
colpipe.linit(small, large, shape, alpha="search", score=my_loss, out="desnet")
model = colpipe.fit("smollm2", {"layers": 20, "heads": 9, "hidden": 576}, "wikipedia.txt")
"""

import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import torch

from colpipe.config.parts import Precision, Select, Shape
from colpipe.config.sizing import automatic_alpha
from colpipe.config.stages import FIT_RIDGE, FIT_TOKENS, ORDER_TOKENS
from colpipe.errors import ColpipeError, first_line
from colpipe.hf.generation_config import generation_config_of
from colpipe.jobs import artifacts
from colpipe.learngene import initialisers
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.calibration import token_batches
from colpipe.learngene.companions import accompany, write_companions
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.fit import fit as refit
from colpipe.learngene.importance import measure, reorder, signal_gain
from colpipe.learngene.inheritance import Inheritance, inheritance, inherited_subset
from colpipe.learngene.linit import METHODS, require_compatible, take_subset
from colpipe.learngene.linit import linit as interpolate
from colpipe.learngene.search import best, sweep
from colpipe.learngene.shapes import between, parameter_count, within
from colpipe.learngene.streams import gather, require_ids
from colpipe.learngene.tokenizers import require_same_tokenizer, require_tokenizer_rows
from colpipe.learngene.weights import Weights


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
            `"220M"`, for the shape between the neighbours that has as many, within 1 %. Widths that are not given are
            multiples of 64, or of 32, where the models have at least 256 channels: quantised formats take them.
        alpha: weight of the smaller neighbour: a number, one per layer, `auto` (by parameter counts), or `search` (the
            best of a grid of alpha and compensation by `score`).
        method: `paper`, `nested`, `lossless` or `aligned`; `cut` takes the shape out of the larger, the folder of an elastic
            member, as it was trained there: alpha, compensate and the smaller have no part in it.
        compensate: 0 to 1, exponent of the compensation of the larger's norm gains.
        out: folder to write; None returns the model.
        score: loss of a model, lower is better; for `search`.

    Returns:
        A stock transformers model, or the path of its folder. Generation settings are the larger's; the tokenizer is the
        larger's (the smaller's where only that has one), and `model.save_pretrained` writes it too.

    Raises:
        ColpipeError: the neighbours, their tokenizers or the shape do not fit; the message names the axis and both sizes.
    """
    require_known("method", method, (*METHODS, "cut"), "; colpipe.fit makes fitted cuts")
    require_known("alpha", alpha, ("auto", "search"))
    require_fractions("compensate", [compensate])
    small, large, sources = Weights(smaller), Weights(larger), {"larger": larger, "smaller": smaller}
    require_same_tokenizer(smaller, larger)
    target, arguments = between(shape, small, large), _inherited(small, large)
    _require_rows(target, small, large, (smaller, larger))
    if method == "cut":
        return _finish(cut(large, target, _elastic(large)), {"larger": larger}, out, kind="linit")
    if alpha == "search":
        if score is None:
            raise ColpipeError("alpha 'search' needs score=, a function that gives a model's loss")
        small, large = Weights(loaded(smaller)), Weights(loaded(larger))
        rows = sweep(small, large, [target], _accompanied(score, sources), methods=[method], **arguments)
        chosen = best(rows)
        alpha, compensate = chosen["alpha"], chosen["compensate"]
    elif alpha == "auto":
        alpha = automatic_alpha(parameter_count(small), parameter_count(large), parameter_count(large, target))
    assembly = interpolate(small, large, target, alpha, method, compensate, **arguments)  # type: ignore[arg-type]  # refuses words
    return _finish(assembly, sources, out, kind="linit")


def initialise(
    kind: str,
    source,
    shape: Mapping[str, int] | Shape | str,
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
        shape: as in `linit`; a number of parameters, `"90M"`, for `subset` and `rand` only, as in `fit`.
        method: of `single`: `paper` or `lossless`.
        select: of `subset`: the `first` layers, or `even`ly spaced ones; of a folder whose manifest ranks its layers (stage
            `order`) also the best of them: `rank`, `rotate`.
        seed: of random weights.
        out: folder to write; None returns the model.

    Returns:
        A stock transformers model, or the path of its folder; tokenizer and generation settings are the source's.

    Raises:
        ColpipeError: an unknown word, one that this kind does not have, or a shape that cannot be made from the source.
    """
    require_known("kind", kind, initialisers.KINDS, "; linit takes two neighbours")
    fitted = "; colpipe.fit makes fitted cuts" if kind == "subset" else ""
    require_known("method", method, ("paper", "lossless") if kind == "single" else ("paper",), f" for {kind}{fitted}")
    require_known("select", select, get_args(Select) if kind == "subset" else ("even",), f" for {kind}")
    weights = Weights(source)
    ranking = inheritance(weights.folder).ranking if weights.folder else None
    if select in ("rank", "rotate") and not ranking:
        raise ColpipeError(
            f"select {select!r}: {weights.name} has no ranking of its layers, which stage order measures and a "
            "manifest keeps; first and even need none"
        )
    if isinstance(shape, str) and kind not in ("subset", "rand"):
        raise ColpipeError(
            f"shape {shape!r}: {kind} needs layers, heads and hidden; parameters are for subset and rand"
        )
    target = within(shape, weights)
    require_tokenizer_rows(source, target["vocabulary"], f"{weights.name}: vocabulary")
    assembly = initialisers.make(kind, weights, target, method, select, seed, ranking)
    return _finish(assembly, {"source": source}, out, kind=kind, seed=seed)


def fit(
    model,
    shape: Mapping[str, int] | Shape | str | Iterable[Mapping[str, int] | Shape | str],
    text,
    select: Select | None = None,
    tokens: int = FIT_TOKENS,
    ridge: float = FIT_RIDGE,
    out: str | Path | None = None,
    precision: Precision = "float32",
):
    """A smaller model cut out of one, its output projections refitted on some text; nothing is trained.

    Args:
        model: model folder or loaded transformers model; run with float32 weights, of one in half precision a copy's.
        shape: as in `linit`, no larger than the model on any axis; a number of parameters, `"90M"`, is met within 1 %
            by what a cut loses least with, fewer layers first. Or several, for which the model is measured and run once.
        text: a text, a list of texts, the path of a text file, or token ids.
        select: what is kept: `rank`, the most important layers, heads, units and channels; `rotate`, principal components
            instead of channels (RMSNorm before blocks only; a tied head then gets weights of its own, so that there are more
            parameters); `first`, leading indices; `even`, evenly spaced layers. None: `rotate` where the head is untied, the
            family can be turned so, and a shape is narrower than the model, otherwise `rank`.
        tokens: of the text, the first so many.
        ridge: how much the cut's own weights count.
        out: folder to write, of several shapes folders `0`, `1`, … in it; None returns models.
        precision: of the layers' arithmetic; `bfloat16` takes about two thirds of the time on a processor that has it.

    Returns:
        A stock transformers model, or the path of its folder; of several shapes a list. Tokenizer and generation settings
        are the model's.

    Raises:
        ColpipeError: no model in the folder, a shape or a text that does not fit the model, or no tokens.
    """
    one = isinstance(shape, Mapping | Shape | str)
    shapes: list = [shape] if one else list(shape)
    source = loaded(model)
    weights = Weights(source)
    targets = [within(each, weights) for each in shapes]
    if select is None:
        narrower = any(target["hidden"] < weights.sizes["hidden"] for target in targets)
        select = "rotate" if narrower and not weights.tied and not weights.family.rotation_problem else "rank"
    require_known("select", select, get_args(Select))
    for target in targets:
        require_compatible(weights, target, at_most=True)
    require_tokenizer_rows(model, weights.sizes["vocabulary"], f"{weights.name}: vocabulary")
    batches = token_batches(model, text, tokens, weights.sizes["position"])
    require_ids(weights.name, weights.sizes, batches)
    source = in_float32(source)
    known: dict[str, Any] = {"select": select}
    if select in ("rank", "rotate"):
        # as many tokens rank as well as twice of them
        every = max(1, sum(ids.numel() for ids in batches) // ORDER_TOKENS)
        ordered = reorder(weights, measure(source, batches[::every], precision=precision), select)
        if weights.tied and not ordered.tied:
            logging.getLogger(__name__).warning(
                f"{weights.name}: rotated, its head is no longer the embedding: {ordered.parameters:,} parameters instead "
                f"of {weights.family.parameters(weights.sizes, True):,} before the cut"
            )
        known, source = ordered.details, ordered.load().to(source.device)
        weights, source = Weights(source), in_float32(source)
    made = []
    with gather(source, batches, precision=precision) as streams:
        for number, target in enumerate(targets):
            gain = signal_gain(known.get("energy"), weights.sizes["hidden"], target["hidden"])
            start = take_subset(weights, target, select, known.get("ranking"), gain=gain)
            folder = None if out is None else Path(out) if one else Path(out) / str(number)
            made.append(_finish(refit(start, streams, ridge), {"source": model}, folder, kind="fit", select=select))
    return made[0] if one else made


def require_known(option: str, value, allowed: Sequence[str], more: str = "") -> None:
    """Refuse a word that an option does not have; numbers and lists are for others to check.

    Raises:
        ColpipeError: names the option, the word and what is allowed.
    """
    if isinstance(value, str) and value not in allowed:
        raise ColpipeError(f"{option} {value!r}: known are {', '.join(allowed)}{more}")


def require_fractions(option: str, values: Iterable[float]) -> None:
    """Refuse numbers outside 0 to 1.

    Raises:
        ColpipeError: names the option and the value.
    """
    for value in values:
        if isinstance(value, str) or not 0 <= value <= 1:
            raise ColpipeError(f"{option} {value!r}: must lie between 0 and 1")


def _require_rows(target: Mapping[str, int], small: Weights, large: Weights, sources: Iterable) -> None:
    """Refuse a vocabulary, cropped to the smaller of the two, that has no room for the tokenizer."""
    fewest = min(large, small, key=lambda each: each.sizes["vocabulary"])
    for source in sources:
        require_tokenizer_rows(source, target["vocabulary"], f"{fewest.name}: vocabulary")


def scan(
    smaller,
    larger,
    shapes: Iterable[Mapping[str, int] | Shape | str],
    score: Callable,
    alphas: Sequence[float | str] = ("auto",),
    compensations: Sequence[float] = (0.0,),
    methods: Sequence[str] = ("nested",),
    text=None,
    tokens: int = FIT_TOKENS,
    ridge: float = FIT_RIDGE,
    precision: Precision = "float32",
) -> list[dict]:
    """Assemble and score every combination, the neighbours loaded once; for architecture search.

    Args:
        shapes: as in `linit`.
        score: loss of a model, lower is better; the model has the larger's tokenizer and generation settings, as in `linit`.
        alphas: numbers, or `auto`.
        text, tokens, ridge, precision: what method `fit` fits on, and how, as in `fit`; the larger is run on it once.

    Returns:
        One row per candidate, best first: shape, parameters, method, alpha, compensate, loss.

    Raises:
        ColpipeError: as in `linit`, or a loss is not finite.
    """
    for alpha in alphas:
        require_known("alpha", alpha, ("auto",), " in a scan")
    require_fractions("compensations", compensations)
    shapes = [shapes] if isinstance(shapes, str | Mapping | Shape) else shapes
    small, large = Weights(smaller), Weights(larger)
    require_same_tokenizer(smaller, larger)
    arguments = _inherited(small, large) | ({"elastic": _elastic(large)} if "cut" in methods else {})
    targets = [between(shape, small, large) for shape in shapes]
    for target in targets[:1]:  # all have the same vocabulary
        _require_rows(target, small, large, (smaller, larger))
    models = loaded(smaller), loaded(larger)
    small, large = map(Weights, models)
    told = _accompanied(score, {"larger": larger, "smaller": smaller})
    with ExitStack() as stack:
        if "fit" in methods and text is not None:
            known = inheritance(Path(larger)) if isinstance(larger, str | os.PathLike) else Inheritance()
            batches = token_batches(larger, text, tokens, large.sizes["position"])
            streams = stack.enter_context(gather(in_float32(models[1]), batches, precision=precision))
            select = "rank" if known.ranking else "even"
            arguments["fitted"] = lambda target: refit(inherited_subset(large, known, target, select), streams, ridge)
        rows = sweep(small, large, targets, told, alphas, compensations, methods, **arguments)
    return sorted(rows, key=lambda row: row["loss"])


def loaded(source):
    """A loaded model stays as it is; a folder is loaded.

    Raises:
        ColpipeError: there is no such folder, or no causal language model in it.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    if not (Path(source) / "config.json").is_file():
        raise ColpipeError(
            f"{source}: is no model folder: no config.json in it (relative paths start at {Path.cwd()}); give one, or a "
            "loaded transformers model"
        )
    from transformers import AutoModelForCausalLM

    generation = generation_config_of(Path(source))
    try:
        return AutoModelForCausalLM.from_pretrained(source, local_files_only=True, generation_config=generation)
    except Exception as error:  # what transformers raises
        raise ColpipeError(f"{source}: cannot be loaded as a causal language model: {first_line(error)}") from None


def in_float32(model):
    """A model whose activations are measured, as the stages do it: itself, or of one in half precision a copy."""
    half = any(value.dtype in (torch.bfloat16, torch.float16) for value in model.parameters())
    return copy.deepcopy(model).float() if half else model


def _inherited(small: Weights, large: Weights) -> dict[str, Any]:
    """What the neighbours' manifests say about their layers; nothing for loaded models."""
    known = inheritance(large.folder) if large.folder else Inheritance()
    layer_map = inheritance(small.folder, large.folder).layer_map if small.folder and large.folder else None
    return {"layer_map": layer_map, "ranking": known.ranking}


def _elastic(large: Weights) -> ElasticMember:
    known = inheritance(large.folder) if large.folder else Inheritance()
    return known.require_elastic(large.name)


def _accompanied(score: Callable, sources: Mapping[str, object]) -> Callable:
    """The score of a model that has its companions."""
    return lambda model: score(accompany(model, sources))


def _finish(assembly: Assembly, sources: Mapping[str, object], out: str | Path | None, **more):
    """The loaded model, or a published folder with a manifest; `sources` as in `accompany`."""
    if out is None:
        return accompany(assembly.load(), sources)
    out = Path(out)
    if out.exists() and not (out / artifacts.MANIFEST).exists() and any(out.iterdir()):
        raise ColpipeError(f"{out}: holds files and no {artifacts.MANIFEST}; give a new folder")
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    assembly.write(staging)
    write_companions(sources, staging)
    folders = {name: source for name, source in sources.items() if isinstance(source, str | os.PathLike)}
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
