"""What a model can spare: channels, heads, units and layers by measured importance, and an equivalent model in that order.

One forward pass over a few thousand tokens, no training. The ancestor is then rewritten once, its function unchanged, so
that the leading indices of every axis are the important ones and every later subset is a prefix.

    rank      a permutation of residual channels, heads (or key/value groups) and feed-forward units; exact for every family.
    rotate    the residual stream is turned to its principal components instead (RMSNorm families; SliceGPT's symmetry):
              norm gains are folded into what reads them, embeddings, writers and readers are rotated. Folding the final
              norm into the head unties it from the embedding.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from colpipe.config.parts import Precision
from colpipe.errors import ColpipeError
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elimination import kept_longest
from colpipe.learngene.least_squares import add_upper, symmetric
from colpipe.learngene.selection import Selection
from colpipe.learngene.stored import is_finite
from colpipe.learngene.streams import Streams, enter, evaluating, gather, layers_of, run_layer, token_weights
from colpipe.learngene.weights import Weights
from colpipe.learngene.writers import writer_of


@dataclass(frozen=True)
class Importance:
    """Measured on a number of tokens; higher is more important.

    Attributes:
        covariance: (hidden, hidden) of the normalised residual stream before the norms' gains, mean over norms and tokens;
            its diagonal ranks the channels.
        heads: (layer, head or group) mean norm of what each writes into the residual stream.
        ffn: (layer, ffn) how many other units are taken away before each, when those go whose loss the rest of the layer can
            make up for best (`elimination.py`).
        layers: (layer,) 1 − cosine of the residual stream before and after each layer.
    """

    covariance: Tensor
    heads: Tensor
    ffn: Tensor
    layers: Tensor

    def ranking(self) -> list[int]:
        """Layers, the most important first."""
        return self.layers.argsort(descending=True, stable=True).tolist()


def measure(
    model,
    batches: Iterable[Tensor],
    scratch: Path | None = None,
    before_batch: Callable[[], object] = lambda: None,
    precision: Precision = "float32",
) -> Importance:
    """Run a model over token ids and look at what passes through it; arguments are those of `gather`.

    Raises:
        ColpipeError: as in `gather`; activations whose squares do not add up.
    """
    with gather(model, batches, scratch, before_batch, precision=precision) as streams, evaluating(model):
        return _measured(model, streams)


@torch.no_grad()
def _measured(model, streams: Streams) -> Importance:
    """What the gathered streams of a model say, one layer in memory at a time."""
    weights, family, tokens = streams.weights, streams.weights.family, streams.tokens
    head = next(axis for axis in ("head", "group") if axis in family.widths)
    size, depth = weights.sizes["hidden"], weights.sizes["layer"]
    covariance, layers = torch.zeros(size, size), torch.zeros(depth)
    heads, ffn = torch.zeros(depth, weights.sizes[head]), torch.zeros(depth, weights.sizes["ffn"])
    [*entering, leaving] = streams.before
    read = [*entering, *(entering if streams.parallel else streams.middle), leaving]  # by each norm
    for place in read:
        for first, end, _ in streams.spans():
            normed = _normalised(place.read(first, end).to(streams.device), family.norm)
            covariance += (normed.T @ normed).cpu() / (tokens * len(read))
    blocks, calls = layers_of(model, family), {}
    for layer, block in enumerate(tqdm(blocks, "measuring layers", disable=None)):  # None: no terminal, no bar
        attention, feed = writer_of(model, family, head, layer), writer_of(model, family, "ffn", layer)
        parts = attention.inward.float().unflatten(0, (weights.sizes[head], -1))  # (head, inside, hidden)
        upper = torch.zeros(feed.inside, feed.inside, dtype=torch.float64)
        for first, end, ids in streams.spans():
            if ids.shape not in calls:
                calls[ids.shape] = enter(model, blocks, ids.to(streams.device))[1]
            before, after = (streams.before[place].read(first, end) for place in (layer, layer + 1))
            layers[layer] += (1 - torch.nn.functional.cosine_similarity(before, after)).sum() / tokens
            stream = before.view(*ids.shape, -1).to(streams.device, model.dtype)
            with streams.computing():
                _, heard = run_layer(block, stream, calls[ids.shape][layer], [attention.module, feed.module])
            said, units = heard.float().split([attention.inside, feed.inside], 1)
            for index, part in enumerate(said.chunk(len(parts), 1)):
                heads[layer, index] += (part @ parts[index]).norm(dim=1).sum().cpu() / tokens
            weight = token_weights(after.to(streams.device))
            add_upper(upper, units * weight[:, None], units)
        if not is_finite(upper):
            raise ColpipeError(
                f"{weights.name}: layer {layer}: its activations are too large to be ranked: their squares do not add up in "
                "float32"
            )
        order = kept_longest(symmetric(upper), feed.inward.cpu())
        ffn[layer, torch.tensor(order)] = torch.arange(len(order) - 1.0, -1, -1)
    return Importance(covariance, heads, ffn, layers)


def _normalised(stream: Tensor, norm: str) -> Tensor:
    """(tokens, hidden) as a norm sees it, before its gain."""
    if norm == "layer":
        stream = stream - stream.mean(1, keepdim=True)
    return stream / stream.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def reorder(source: Weights, importance: Importance, select: str, tied: bool | None = None) -> Assembly:
    """A model of the same function whose leading indices are the important ones.

    Args:
        source: the model that was measured.
        select: `rank` or `rotate`.
        tied: whether the result's head is its embedding; None: as in the source, but never after a rotation. True after a
            rotation re-ties it, which is not exact: the final norm can then only keep the diagonal of what it did.

    Returns:
        The model; its details hold `ranking` (layers, best first) and `energy` (share of the normalised signal that the
        leading 1, 2, … channels carry).

    Raises:
        ColpipeError: a rotation of a LayerNorm model, or a head that cannot be tied.
    """
    family, sizes = source.family, source.sizes
    head = next(axis for axis in ("head", "group") if axis in family.widths)
    by_layer = {head: _descending(importance.heads), "ffn": _descending(importance.ffn)}
    ordered = Selection(range(sizes["layer"]), {}, by_layer)
    covariance = importance.covariance.double()
    if tied and not source.tied:
        raise ColpipeError(f"{source.name}: its head is not tied to the embedding; set architecture.tied: false")
    if select == "rank":
        tied = source.tied if tied is None else tied
        hidden = _descending(covariance.diagonal()[None])[0]
        ordered = Selection(ordered.layers, {"hidden": hidden}, by_layer)
        energy = covariance.diagonal()[hidden]

        def value(name: str, layer: int | None) -> Tensor:
            return source.take(name, layer, ordered).float()

    else:
        if family.rotation_problem:
            raise ColpipeError(f"{source.name}: select 'rotate': {family.rotation_problem}: use 'rank'")
        tied = bool(tied)
        energy, basis = torch.linalg.eigh(covariance)  # ascending
        energy, basis = energy.flip(0), basis.flip(1)
        value = _rotated(source, ordered, basis, tied)

    config = family.resize(source.config, sizes, tied, range(sizes["layer"]))
    details = {
        "select": select,
        "ranking": importance.ranking(),
        "energy": [round(share, 6) for share in (energy.cumsum(0) / energy.sum()).tolist()],
    }
    return Assembly(family, sizes, tied, config, source.dtype, value, details, [source])


def signal_gain(energy: Sequence[float] | None, source: int, target: int) -> float:
    """Factor of every norm's gain after a cut to `target` of `source` leading channels.

    A norm divides by the root mean square of the channels that are left. These carry `energy[target]/energy[source]` of the
    signal on target/source of the channels, and would come out too small by the root of the quotient.
    """
    if energy is None or source == target:
        return 1.0
    return (energy[target - 1] / energy[source - 1] * source / target) ** 0.5


def _rotated(source: Weights, ordered: Selection, basis: Tensor, tied: bool):
    """(name, layer) → tensor in the rotated residual stream; `basis` (hidden, hidden) has the new channels as columns."""
    tensors = source.family.tensors
    everything = Selection(ordered.layers, {})
    final = next(tensor.after for tensor in tensors.values() if tensor.role == "head")
    final_gain = source.take(final, None, everything).double()
    diagonal = (basis * final_gain[:, None] * basis).sum(0)  # of basisᵀ · diag(gain) · basis

    def value(name: str, layer: int | None) -> Tensor:
        tensor = tensors[name]
        if tensor.role == "gain":
            return (diagonal if tied and name == final else torch.ones_like(final_gain)).float()
        taken = source.take(name, layer, ordered).double()
        if "hidden" not in tensor.names:
            return taken.float()
        taken = taken.movedim(tensor.names.index("hidden"), -1)
        if tensor.role in ("read", "head"):
            gain = final_gain if tensor.role == "head" else source.take(tensor.after, layer, everything).double()
            taken = taken * gain
        return (taken @ basis).movedim(-1, tensor.names.index("hidden")).float()

    return value


def _descending(importance: Tensor) -> list[list[int]]:
    """Indices of each row, the most important first."""
    return [row.argsort(descending=True, stable=True).tolist() for row in importance]
