"""What a model can spare: channels, heads, units and layers by measured importance, and an equivalent model in that order.

One forward pass over a few thousand tokens, no training. The ancestor is then rewritten once, its function unchanged, so
that the leading indices of every axis are the important ones and every later subset is a prefix.

    rank      a permutation of residual channels, heads (or key/value groups) and feed-forward units; exact for every family.
    rotate    the residual stream is turned to its principal components instead (RMSNorm families; SliceGPT's symmetry):
              norm gains are folded into what reads them, embeddings, writers and readers are rotated. Folding the final
              norm into the head unties it from the embedding.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from colpipe.architectures.families import TensorSpec
from colpipe.errors import ColpipeError
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.selection import Selection
from colpipe.learngene.weights import Weights


@dataclass(frozen=True)
class Importance:
    """Measured on a number of tokens; higher is more important.

    Attributes:
        covariance: (hidden, hidden) of the normalised residual stream before the norms' gains, mean over norms and tokens;
            its diagonal ranks the channels.
        heads: (layer, head or group) mean norm of what each writes into the residual stream.
        ffn: (layer, ffn) mean absolute activation of each unit.
        layers: (layer,) 1 − cosine of the residual stream before and after each layer.
    """

    covariance: torch.Tensor
    heads: torch.Tensor
    ffn: torch.Tensor
    layers: torch.Tensor

    def ranking(self) -> list[int]:
        """Layers, the most important first."""
        return self.layers.argsort(descending=True, stable=True).tolist()


@torch.inference_mode()
def measure(model, batches: Iterable[torch.Tensor]) -> Importance:
    """Run a model over token ids and look at what passes through it.

    Args:
        model: a loaded transformers model of a known family.
        batches: (rows, tokens) of ids.
    """
    weights = Weights(model)
    family, sizes = weights.family, weights.sizes
    head = next(axis for axis in ("head", "group") if axis in family.widths)
    count, hidden, layers = 0, sizes["hidden"], sizes["layer"]
    total = Importance(
        covariance=torch.zeros(hidden, hidden, device=model.device),
        heads=torch.zeros(layers, sizes[head], device=model.device),
        ffn=torch.zeros(layers, sizes["ffn"], device=model.device),
        layers=torch.zeros(layers, device=model.device),
    )
    norms = _modules(model, weights, lambda tensor: tensor.role == "gain")

    def at_norm(module, inputs, output):
        entering = inputs[0].flatten(0, 1).float()
        if family.norm == "layer":
            entering = entering - entering.mean(1, keepdim=True)
        entering = entering / entering.pow(2).mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        total.covariance.add_(entering.T @ entering, alpha=1 / len(norms))

    def at_attention(layer):
        name = next(name for name, tensor in family.tensors.items() if _writes(tensor, head))
        taken = weights.take(name, layer, Selection(range(layers), {})).float().to(model.device)
        axis = family.tensors[name].names.index("hidden")
        written = taken.movedim(axis, -1).flatten(0, -2).unflatten(0, (sizes[head], -1))  # (head, inside, hidden)

        def hook(module, inputs):
            value = inputs[0].flatten(0, 1).float().unflatten(1, (sizes[head], -1))
            for index in range(sizes[head]):
                total.heads[layer, index] += (value[:, index] @ written[index]).norm(dim=1).sum()

        return hook

    def at_feed_forward(layer):
        def hook(module, inputs):  # returns nothing: a returned value would replace the input
            total.ffn[layer] += inputs[0].flatten(0, 1).float().abs().sum(0)

        return hook

    def at_layer(layer):
        def hook(module, inputs, output):
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.nn.functional.cosine_similarity(inputs[0].float(), after.float(), dim=-1)
            total.layers[layer] += (1 - cosine).sum()

        return hook

    block = next(name for name in family.tensors if "{layer}" in name).partition(".{layer}")[0]
    with ExitStack() as hooks:
        for module in norms:
            hooks.enter_context(module.register_forward_hook(at_norm))
        for layer, module in enumerate(_modules(model, weights, lambda tensor: _writes(tensor, head))):
            hooks.enter_context(module.register_forward_pre_hook(at_attention(layer)))
        for layer, module in enumerate(_modules(model, weights, lambda tensor: _writes(tensor, "ffn"))):
            hooks.enter_context(module.register_forward_pre_hook(at_feed_forward(layer)))
        for layer, module in enumerate(model.get_submodule(block)):
            hooks.enter_context(module.register_forward_hook(at_layer(layer)))
        for ids in batches:
            model(input_ids=ids.to(model.device), attention_mask=torch.ones_like(ids).to(model.device), use_cache=False)
            count += ids.numel()
    if not count:
        raise ColpipeError("no tokens to measure importance on")
    return Importance(**{name: (value / count).cpu() for name, value in vars(total).items()})


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

        def value(name: str, layer: int | None) -> torch.Tensor:
            return source.take(name, layer, ordered).float()

    else:
        if family.norm != "rms":
            raise ColpipeError(
                f"{source.name}: select 'rotate' needs a family with RMSNorm; {family.name} has LayerNorm, whose residual "
                "stream can only be permuted: use 'rank'"
            )
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


def _rotated(source: Weights, ordered: Selection, basis: torch.Tensor, tied: bool):
    """(name, layer) → tensor in the rotated residual stream; `basis` (hidden, hidden) has the new channels as columns."""
    tensors = source.family.tensors
    everything = Selection(ordered.layers, {})
    final = next(tensor.after for tensor in tensors.values() if tensor.role == "head")
    final_gain = source.take(final, None, everything).double()
    diagonal = (basis * final_gain[:, None] * basis).sum(0)  # of basisᵀ · diag(gain) · basis

    def value(name: str, layer: int | None) -> torch.Tensor:
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


def _writes(tensor: TensorSpec, axis: str) -> bool:
    return tensor.role == "write" and axis in tensor.names


def _modules(model, weights: Weights, chosen) -> list:
    """The modules that hold the chosen tensors of the table, layer by layer."""
    names = [name for name, tensor in weights.family.tensors.items() if chosen(tensor)]
    found = []
    for name in names:
        for layer in range(weights.sizes["layer"]) if "{layer}" in name else [0]:
            found.append(model.get_submodule(name.format(layer=layer).rpartition(".")[0]))
    return found


def _descending(importance: torch.Tensor) -> list[list[int]]:
    """Indices of each row, the most important first."""
    return [row.argsort(descending=True, stable=True).tolist() for row in importance]
