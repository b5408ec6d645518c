"""Fitted cuts: a cut's output projections, refitted so that its residual stream is closest to the source's.

A cut model reads a stream that lacks channels, heads, units and whole layers, and writes a wrong one in turn. From the first
layer on, on the cut's own activations, its output projections are refitted: that of the attention towards the source's
stream behind the attention of the same layer, then that of the feed-forward part towards the source's stream at the input of
the *next kept* layer, which folds in what dropped layers would have added. Where attention and feed-forward are parallel,
both are fitted together towards the latter; where a norm stands behind a block, its gain is fitted too
(`fit_behind_norms.py`). Nothing is trained: every fit is one linear system,

    minimise |Y − H Wᵀ|² + ridge · mean(diag HᵀH) · |W − W₀|²

with H (tokens, inside) what the projection reads, Y (tokens, hidden) what it should write, and W₀ the cut's own weights. A
token weighs 1 / root mean square of the stream that is aimed at. A bias is refitted with the weight, and not held back: its
ridge is 0; behind a norm, it stays. For LayerNorm, which takes the mean over channels away, nothing is done: every channel
is a regression of its own, so that fitting the mean as well takes nothing from the rest.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from colpipe.architectures.family import Family
from colpipe.config.parts import Precision
from colpipe.config.stages import FIT_RIDGE
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.fit_behind_norms import refit_behind_norm
from colpipe.learngene.gather import open_axes
from colpipe.learngene.least_squares import Normal
from colpipe.learngene.scaling import as_used
from colpipe.learngene.selection import Selection
from colpipe.learngene.stored import is_finite
from colpipe.learngene.streams import (
    RowFile,
    Streams,
    enter,
    gather,
    layers_of,
    replaced,
    require_ids,
    run_layer,
    token_weights,
)
from colpipe.learngene.weights import Weights
from colpipe.learngene.writers import Writer, parent, writer_of

logger = logging.getLogger(__name__)


def fitted(
    model,
    start: Assembly,
    batches: Iterable[Tensor],
    ridge: float = FIT_RIDGE,
    scratch: Path | None = None,
    before_batch: Callable[[], object] = lambda: None,
    precision: Precision = "float32",
) -> Assembly:
    """`gather` and `fit` for one size; arguments and errors are theirs."""
    with gather(model, batches, scratch, before_batch, precision=precision) as streams:
        return fit(start, streams, ridge)


@torch.no_grad()
def fit(start: Assembly, streams: Streams, ridge: float = FIT_RIDGE) -> Assembly:
    """A cut with its output projections, and their biases, refitted.

    Leading layers that are the source's own, each followed by the source's next, have nothing to make up for and stay.

    Args:
        start: a subset of the gathered model (`take_subset`, `elastic.cut`).
        streams: of the model that it was cut from.
        ridge: how much the cut's own weights count, as a share of the mean square of what a projection reads.

    Returns:
        The same assembly with other output projections. Its details say the method, ridge, tokens, precision, `untouched`
        (how many leading layers stay), `fitted` (of each fit the relative error |Y − H Wᵀ| / |Y| before and after, and the
        ridge where it had to be raised) and, where there are fewer tokens than a projection reads, `rank_deficient` (its
        width).

    Raises:
        ColpipeError: the start was not cut from the gathered model, an id is outside its vocabulary, a row longer than its
            positions, its activations are not finite, or the sums of their squares are not.
    """
    if not 0 <= ridge < math.inf:
        raise ColpipeError(f"ridge {ridge}: must be 0 or more, and finite")
    source = streams.weights
    selection = require_cut_from(start, source)
    require_ids(f"the cut of {source.name}", start.sizes, streams.batches)
    untouched = _untouched(start, selection, source)
    tensors, found, widest = _walk(start, selection, streams, ridge, untouched)
    details = {**start.details, "method": "fit", "ridge": ridge, "tokens": streams.tokens, "untouched": untouched}
    details |= {"precision": streams.precision, "fitted": found}
    if found and streams.tokens < widest:
        logger.warning(
            f"{source.name}: {streams.tokens:,} tokens are fewer than the {widest:,} inputs of a projection that is fitted "
            "on them: the ridge alone decides the rest; give more tokens"
        )
        details["rank_deficient"] = widest

    def value(name: str, layer: int | None):
        if (stored := tensors.get(name.format(layer=layer))) is not None:
            opened = open_axes(stored, start.family.tensors[name], start.sizes)
            return as_used(opened, start.family, name, start.sizes["hidden"], start.tied)
        return start.value(name, layer)

    return replace(start, value=value, details=details)


def require_cut_from(start: Assembly, source: Weights) -> Selection:
    """What a start takes from this model; refuses one that is no cut of it.

    Raises:
        ColpipeError: says what differs.
    """
    selection = start.selection
    if selection is None or len(start.sources) != 1:
        raise ColpipeError(
            f"{source.name}: only a subset of it can be fitted to it: take_subset, or cut of an elastic member"
        )
    own = start.sources[0]
    if (own.family, own.sizes) != (source.family, source.sizes):
        raise ColpipeError(f"{own.name}: the start was cut from it, the streams are of {source.name}, of another shape")
    for name, layer in _all_tensors(source):
        filled = name.format(layer=layer)
        one, other = own.read(filled), source.read(filled)
        if one.data_ptr() != other.data_ptr() and not torch.equal(one.float(), other.float()):
            raise ColpipeError(
                f"{own.name}: the start was cut from it, the streams are of {source.name}: {filled} differs; gather from "
                "the model that is cut: where it is ranked or rotated, from that"
            )
    return selection


def _all_tensors(source: Weights) -> Iterator[tuple[str, int | None]]:
    for name, _ in source.family.table(source.tied):
        yield from ((name, layer) for layer in (range(source.sizes["layer"]) if "{layer}" in name else [None]))


def _untouched(start: Assembly, selection: Selection, source: Weights) -> int:
    """How many leading layers of a cut compute, and are followed by, what they are in the source."""
    family = start.family
    if any(start.sizes[axis] != source.sizes[axis] for axis in family.widths):
        return 0

    def same(name: str, layer: int | None) -> bool:
        value = start.value(name, layer)
        parts = [value] if isinstance(value, Tensor) else list(value)
        return torch.equal(torch.cat(parts).float(), source.take(name, layer, selection).float())

    if not all(same(name, None) for name, tensor in family.tensors.items() if tensor.role == "embed"):
        return 0
    inside = [name for name in family.tensors if "{layer}" in name]
    for layer, following in enumerate([*selection.layers[1:], source.sizes["layer"]]):
        if selection.layers[layer] != layer or following != layer + 1 or not all(same(name, layer) for name in inside):
            return layer
    return start.sizes["layer"]


@dataclass(frozen=True)
class Step:
    """One fit of a layer: which projections, towards which stream, and what of the layer is silent meanwhile."""

    part: str
    writers: list[Writer]
    aim: RowFile
    silent: list[torch.nn.Module]
    silence: Callable


def _walk(
    start: Assembly, selection: Selection, streams: Streams, ridge: float, untouched: int
) -> tuple[dict[str, Tensor], list[dict], int]:
    """Refit layer after layer: (stored name → tensor, an entry for each fit, the most inputs of one)."""
    if untouched == start.sizes["layer"]:
        return {}, [], 0
    device, depth = streams.device, start.sizes["layer"]
    origins = [int(origin) for origin in selection.layers if origin is not None]  # a subset has no new layers
    channels = torch.tensor(list(selection.axes.get("hidden", range(start.sizes["hidden"]))))
    model = start.load().float().to(device)
    layers = layers_of(model, start.family)
    widest = max(
        sum(writer.inside for writer in step.writers) for step in _steps(model, start.family, streams, 0, 0, -1)
    )
    require_space(streams.scratch, 4 * streams.tokens * (len(channels) + widest), "the cut's own activations")
    tensors: dict[str, Tensor] = {}
    found: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="colpipe-fit-", dir=streams.scratch) as folder:
        stream = RowFile(Path(folder) / "stream", len(channels))
        calls = {}
        for first, end, ids in streams.spans():
            if untouched == 0 or ids.shape not in calls:
                entering, calls[ids.shape] = enter(model, layers, ids.to(device))
            stream.write(first, streams.before[untouched].read(first, end) if untouched else entering)
        for layer in tqdm(range(untouched, depth), "fitting layers", disable=None):  # None: no terminal, no bar
            following = origins[layer + 1] if layer + 1 < depth else -1
            for step in _steps(model, start.family, streams, layer, origins[layer], following):
                where = f"layer {layer} (the source's {origins[layer]}), {step.part}"
                heard = RowFile(Path(folder) / "heard", sum(writer.inside for writer in step.writers))
                given = {shape: call[layer] for shape, call in calls.items()}
                normal = _listen(streams, stream, heard, channels, step, layers[layer], given)
                if normal is None:
                    raise ColpipeError(f"the cut of {streams.weights.name}: {where}: its activations are not finite")
                if not normal.is_finite():
                    raise ColpipeError(
                        f"the cut of {streams.weights.name}: {where}: its activations are too large to be fitted: their "
                        "squares do not add up in float32"
                    )
                if step.writers[0].norm is not None:
                    entry = refit_behind_norm(
                        streams, stream, heard, step.aim, channels, step.writers[0], normal, ridge, start.dtype
                    )
                else:
                    change, shift, entry = _solve(normal, step.writers, ridge, start.dtype)
                    for first, end, _ in streams.spans():
                        with streams.computing():
                            written = heard.read(first, end).to(device) @ change.T
                        stream.write(first, stream.read(first, end).to(device) + (written + shift))
                if "ridge" in entry:
                    logger.warning(
                        f"{where}: the system is singular at a ridge of {ridge:g}; {entry['ridge']:g} was taken"
                    )
                found.append({"layer": layer, "part": step.part, **entry})
                for writer in step.writers:
                    tensors |= writer.stored(start.dtype)
    return tensors, found, widest


def _steps(model, family: Family, streams: Streams, layer: int, origin: int, following: int) -> list[Step]:
    """The fits of one layer of the cut, which is the source's layer `origin` and is followed by its layer `following`."""
    head = next(axis for axis in ("head", "group") if axis in family.widths)
    attention, feed = writer_of(model, family, head, layer), writer_of(model, family, "ffn", layer)
    if streams.parallel:
        return [Step("both", [attention, feed], streams.before[following], [], torch.zeros_like)]
    return [
        Step("attention", [attention], streams.middle[origin], [parent(model, feed.weight)], torch.zeros_like),
        Step("feed-forward", [feed], streams.before[following], [parent(model, attention.weight)], _no_attention),
    ]


def _no_attention(hidden_states: Tensor, *_, **__) -> tuple[Tensor, None]:
    """An attention that adds nothing to the stream."""
    return torch.zeros_like(hidden_states), None


def _listen(
    streams: Streams, stream: RowFile, heard: RowFile, channels: Tensor, step: Step, layer, calls: Mapping
) -> Normal | None:
    """Have a layer of the cut read its stream and write to it; keep what the step's projections hear, and give the sums that
    they are fitted by; None where something is not finite."""
    device, normal = streams.device, Normal(heard.width, len(channels))
    watched = [writer.module for writer in step.writers]
    for first, end, ids in streams.spans():
        x = stream.read(first, end).view(*ids.shape, -1).to(device)
        y = step.aim.read(first, end)[:, channels].to(device)
        with replaced(step.silent, step.silence), streams.computing():
            output, inputs = run_layer(layer, x, calls[ids.shape], watched)
        output, inputs = output.float(), inputs.float()
        if not (is_finite(output) and is_finite(inputs)):
            return None
        parts = inputs.split([writer.inside for writer in step.writers], 1)
        read = torch.cat([writer.heard(part) for writer, part in zip(step.writers, parts, strict=True)], 1)
        normal.add(read, y - output, y, token_weights(y))
        stream.write(first, output)
        heard.write(first, inputs)
    return normal


def _solve(normal: Normal, writers: Sequence[Writer], ridge: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, dict]:
    """Fit some projections and change them: what they add for what they read (hidden, inside), and for every token
    (hidden,), and the entry for the details."""
    biased = [writer for writer in writers if writer.bias]
    found = normal.solve(ridge, affine=bool(biased))
    parts = found.change.split([writer.inside for writer in writers], 1)
    added = [writer.factor * writer.add(part, dtype) for writer, part in zip(writers, parts, strict=True)]
    change = torch.cat(added, 1)
    shift = biased[-1].shift(found.shift, dtype) if biased else torch.zeros_like(change[:, 0])
    entry = {"before": round(found.before, 6), "after": round(found.after, 6)}
    if found.ridge != ridge:
        entry["ridge"] = found.ridge
    return change, shift, entry
