"""LInit: a DesNet's first weights from its two neighbours of the learngene chain (§3.4).

    paper      θ = α · expand(smaller) + (1 − α) · subset(larger): all of the smaller with its last indices again, the first
               indices of the larger, on every axis.
    nested     mixed where both have an index, the larger's own elsewhere. Layers correspond by inheritance.
    aligned    nested, after the larger's channels, heads and units were put into the order of those of the smaller that
               they resemble most.
    lossless   nested, with the smaller grown so that its function does not change: α = 1 gives its logits.

Every method mixes in float32 what `Weights.take` gives for the two, tensor by tensor.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import torch

from colpipe.architectures.layers import between, evenly_spaced, expand, keep_layers, subset
from colpipe.errors import ColpipeError
from colpipe.learngene.agreement import require_alike, require_same_kinds
from colpipe.learngene.alignment import align
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.selection import Selection, leading
from colpipe.learngene.stored import rotations
from colpipe.learngene.weights import Weights

PART = 2**20  # bytes mixed at a time: few enough for the processor's cache, and for memory to be used again
METHODS = ("paper", "nested", "lossless", "aligned")


def take_subset(
    source: Weights,
    target: Mapping[str, int],
    select: str = "even",
    ranking: Sequence[int] | None = None,
    tied: bool | None = None,
    gain: float = 1.0,
    layers: Sequence[int] | None = None,
) -> Assembly:
    """A smaller model cut out of a larger one: leading heads, channels and units, chosen layers.

    This is how a chain member inherits from its teacher.

    Args:
        source: the larger model.
        target: size of every axis (`Architecture.sizes`).
        select: which layers are kept: `first`, `even`, or the best of `ranking`.
        tied: whether the result's head is its embedding; None: as in the source.
        gain: factor of every norm's gain, for the signal that the cut takes away.
        layers: the layers that are kept, where they are known already.

    Raises:
        ColpipeError: an axis of the target is larger than the source's, or the two cannot be matched.
    """
    require_compatible(source, target, at_most=True)
    tied = require_tied(source, tied)
    layers = layers or keep_layers(select, source.sizes["layer"], target["layer"], ranking)
    chosen = Selection(layers, leading(source.family, source.sizes, target))

    def value(name: str, layer: int | None) -> torch.Tensor:
        taken = source.take(name, layer, chosen).float()
        return taken * gain if source.family.tensors[name].role == "gain" else taken

    config = source.family.resize(source.config, target, tied, layers)
    details = {"layer_map": layers, "index_maps": {"larger": chosen.brief()}}
    return Assembly(source.family, target, tied, config, source.dtype, value, details, [source], chosen)


def linit(
    smaller: Weights,
    larger: Weights,
    target: Mapping[str, int],
    alpha: float | Sequence[float],
    method: str = "paper",
    compensate: float = 0.0,
    layer_map: Sequence[int] | None = None,
    ranking: Sequence[int] | None = None,
) -> Assembly:
    """Interpolate two neighbours of the chain.

    Args:
        smaller, larger: the neighbours.
        target: size of every axis of the DesNet.
        alpha: weight of the smaller neighbour; or one per layer of the DesNet, whose mean then serves what is outside.
        method: `paper`, `nested`, `aligned` or `lossless`.
        compensate: exponent g of the factor (hidden of the larger / hidden of the DesNet)^g on the larger's norm gains:
            a subset of channels reads a weaker signal.
        layer_map: for each layer of the smaller, the larger's layer that it came from; None for neighbours that do not
            descend from each other, whose layers are then matched evenly spaced.
        ranking: the larger's layers, best first; None spreads the added layers evenly.

    Returns:
        The DesNet, in the larger's dtype.

    Raises:
        ColpipeError: sizes, vocabularies or positions that cannot be matched; the message names the axis and the sizes.
    """
    if method not in METHODS:
        raise ColpipeError(f"method {method!r}: known are {', '.join(METHODS)}, and cut for elastic neighbours")
    family = larger.family
    require_alike(smaller, larger, grown=method == "lossless")
    require_compatible(larger, target, at_most=True)
    require_compatible(smaller, target, at_least=method == "lossless")
    alphas = _per_layer(alpha, target["layer"])
    if method == "paper":
        from_large = Selection(subset(larger.sizes["layer"], target["layer"]), leading(family, larger.sizes, target))
        from_small = Selection(
            expand(smaller.sizes["layer"], target["layer"]),
            {
                **leading(family, smaller.sizes, target),
                **{axis: expand(smaller.sizes[axis], target[axis]) for axis in family.widths},
            },
        )
    else:
        came_from = list(layer_map or evenly_spaced(larger.sizes["layer"], smaller.sizes["layer"]))
        if len(came_from) != smaller.sizes["layer"] or max(came_from) >= larger.sizes["layer"]:
            raise ColpipeError(
                f"layer_map {came_from}: {smaller.name} has {smaller.sizes['layer']} layers, {larger.name} "
                f"{larger.sizes['layer']}; it gives a layer of the larger for each of the smaller"
            )
        layers = between(came_from, larger.sizes["layer"], target["layer"], ranking)
        from_small = Selection(
            [came_from.index(layer) if layer in came_from else None for layer in layers],
            leading(family, smaller.sizes, target),
        )
        from_large = Selection(layers, leading(family, larger.sizes, target))
        if method == "aligned":
            from_large = align(larger, smaller, from_large, came_from)
    require_same_kinds(smaller, from_small.layers, larger, from_large.layers)

    gain = (larger.sizes["hidden"] / target["hidden"]) ** compensate
    config = family.resize(larger.config, target, larger.tied, from_large.layers)
    growth = None
    if method == "lossless":
        (key, large), (_, small) = (family.epsilon(weights.config) for weights in (larger, smaller))
        epsilon = (1 - alphas[None]) * large + alphas[None] * small
        config[key] = (1 - alphas[None]) * large + alphas[None] * thinned(small, smaller, target)
        growth = Growth(lossless_growth(smaller, target), (config[key] / epsilon) ** 0.5 if epsilon else 1.0)
    value = mixture(larger, from_large, smaller, from_small, alphas, gain, growth)
    details = {
        "method": method,
        "alpha": alpha if isinstance(alpha, int | float) else list(alpha),
        "compensate": compensate,
        "index_maps": {"smaller": from_small.brief(), "larger": from_large.brief()},
    }
    return Assembly(family, target, larger.tied, config, larger.dtype, value, details, [smaller, larger])


class Growth(NamedTuple):
    """How the smaller neighbour grows losslessly.

    Attributes:
        tensor: grows one of its tensors (`lossless_growth`).
        queries: factor of queries and keys that a norm inside the attention reads. It has the epsilon of the norms over the
            stream, which follows the width, and channels of its own, which do not: with them as small as the root of the
            epsilon has become, what it gives is what it was.
    """

    tensor: Callable[[str, torch.Tensor | None], torch.Tensor | None]
    queries: float


def thinned(epsilon: float, smaller: Weights, target: Mapping[str, int]) -> float:
    """A norm's epsilon beside a variance that new channels have thinned."""
    return epsilon * smaller.sizes["hidden"] / target["hidden"]


def mixture(
    larger: Weights,
    from_large: Selection,
    smaller: Weights,
    from_small: Selection,
    alphas: Mapping[int | None, float],
    gain: float = 1.0,
    growth: Growth | None = None,
) -> Callable[[str, int | None], Iterator[torch.Tensor]]:
    """(name, layer) → parts of alpha · smaller + (1 − alpha) · larger where the smaller has something, else of the larger.

    Args:
        alphas: layer → alpha; None stands for the tensors outside the layers.
        gain: factor of the larger's norm gains.
        growth: how the smaller grows, if it does so losslessly.
    """
    scaled = larger.family.normed_inside if growth and growth.queries != 1 else frozenset()
    tensors = larger.family.tensors  # what a norm scales behind a block is scaled there
    writes = {tensor.into or name for name, tensor in tensors.items() if tensor.role == "write"}

    def value(name: str, layer: int | None) -> Iterator[torch.Tensor]:
        tensor = tensors[name]
        width = math.prod(larger.sizes[axis] for axis in tensor.names[1:])
        rows = max(1, PART // (width * larger.dtype.itemsize))
        if growth and tensor.names[0] != "vocabulary":
            rows = None  # growth looks at all of such a tensor
        sources = larger.take_rows(name, layer, from_large, rows), smaller.take_rows(name, layer, from_small, rows)
        for large, small in zip_longest(*sources):
            part = mixed(name, layer, large, small)
            yield part.float() * growth.queries if growth and name in scaled else part

    def mixed(name: str, layer: int | None, large: torch.Tensor, small: torch.Tensor | None) -> torch.Tensor:
        role, alpha = tensors[name].role, alphas[layer]
        if role == "gain":
            large = large.float() * gain
        if growth:
            small = growth.tensor(name, small)
        if small is None:  # a block that the smaller lacks; losslessly grown, it writes nothing
            return (1 - alpha) * large if growth and name in writes else large
        if small.dtype != large.dtype:
            large, small = large.float(), small.float()
        if small.shape == large.shape:
            return torch.lerp(large, small, alpha)  # computed in float32 for bfloat16 too, and rounded once
        whole = large.clone(memory_format=torch.contiguous_format)
        whole[tuple(slice(0, size) for size in small.shape)].lerp_(small, alpha)
        return whole

    return value


def _per_layer(alpha: float | Sequence[float], layers: int) -> dict[int | None, float]:
    """Layer → alpha; None stands for the tensors outside the layers."""
    if isinstance(alpha, str):
        raise ColpipeError(f"alpha {alpha!r}: give a number, or one per layer")
    values = [float(alpha)] * layers if isinstance(alpha, int | float) else list(alpha)
    if len(values) != layers:
        raise ColpipeError(
            f"alpha has {len(values)} values, the DesNet has {layers} layers; give one number or one per layer"
        )
    if not all(0 <= value <= 1 for value in values):
        raise ColpipeError(f"alpha {alpha}: must lie between 0 and 1")
    return {None: sum(values) / layers, **dict(enumerate(values))}


def lossless_growth(smaller: Weights, target: Mapping[str, int]) -> Callable:
    """How the smaller's tensors grow without changing its function.

    New channels carry the mean of the old ones (LayerNorm: mean and direction stay) or 0 (RMSNorm), every norm ignores
    them (gain and shift 0) and makes up for the thinned variance (gain · sqrt(d / d_target)). New heads, units and blocks
    write nothing. What no norm lets through and what writes nothing may hold anything, so there the larger's own weights
    stand: a tensor is then returned as it is, for the leading block only. The epsilon of the norms is thinned too, in
    config.json, and what norms inside the attention read with it (`Growth.queries`).

    Raises:
        ColpipeError: heads are to be added where queries and keys are normalised over all heads.
    """
    if smaller.family.norms_all_heads and smaller.sizes["head"] != target["head"]:
        raise ColpipeError(
            f"{smaller.name}: head is {smaller.sizes['head']}, the target's {target['head']}; {smaller.family.name} "
            "normalises queries and keys over all heads, so that none can be added losslessly; method nested can"
        )
    family, sizes = smaller.family, smaller.sizes
    factor = (sizes["hidden"] / target["hidden"]) ** 0.5

    def widen(value: torch.Tensor, dimension: int, fill: torch.Tensor | float) -> torch.Tensor:
        shape = list(value.shape)
        shape[dimension] = target["hidden"] - shape[dimension]
        new = fill.expand(shape) if isinstance(fill, torch.Tensor) else value.new_full(shape, fill)
        return torch.cat([value, new], dimension)

    def grow(name: str, value: torch.Tensor | None) -> torch.Tensor | None:
        tensor = family.tensors[name]
        if value is None or tensor.role in ("read", "head", "inside"):
            return value
        value = value.float()
        dimension = tensor.names.index("hidden")
        if tensor.role in ("gain", "shift"):
            return widen(value * factor if tensor.role == "gain" else value, dimension, 0.0)
        value = widen(value, dimension, value.mean(dimension, keepdim=True) if family.norm == "layer" else 0.0)
        if tensor.role == "embed":
            return value
        full = [
            value.shape[i] if axis in ("hidden", "head_dim") else target[axis] for i, axis in enumerate(tensor.names)
        ]
        grown = value.new_zeros(full)
        grown[tuple(slice(0, size) for size in value.shape)] = value
        return grown

    return grow


def require_compatible(
    source: Weights,
    target: Mapping[str, int],
    at_most: bool = False,
    at_least: bool = False,
    whole_groups: bool = True,
) -> None:
    """Refuse a target that cannot be made from a source.

    Args:
        at_most: the target must not be larger than the source on any axis.
        at_least: nor smaller.
        whole_groups: the target must have as many queries in a group.

    Raises:
        ColpipeError: names the source, the axis and both sizes.
    """
    sizes, family = source.sizes, source.family
    if problem := family.shape_problem(target):
        raise ColpipeError(f"the target: {problem}")
    for rope in rotations(source.config.get("rope_parameters") or {}).values():
        kind = rope.get("rope_type")
        by_position = kind == "dynamic" or (kind in ("longrope", "yarn") and rope.get("factor") is None)
        if by_position and sizes["position"] != target["position"]:
            raise ColpipeError(
                f"{source.name}: position is {sizes['position']}, the target's is {target['position']}; rope_type {kind} "
                "turns by that number, so that it must stay"
            )
    if sizes["head_dim"] != target["head_dim"]:
        raise ColpipeError(
            f"{source.name}: head_dim is {sizes['head_dim']}, the target's is {target['head_dim']}; heads are taken whole"
        )
    if whole_groups and sizes["query"] != target["query"]:
        raise ColpipeError(
            f"{source.name}: has {sizes['query']} query heads per key/value head (group), the target {target['query']}; "
            "groups are taken whole, with their queries"
        )
    for axis in ("vocabulary", "position"):
        if sizes[axis] < target[axis]:
            raise ColpipeError(f"{source.name}: {axis} is {sizes[axis]}, the target's {target[axis]} is more than that")
    for axis in ("layer", *family.widths):
        if at_most and target[axis] > sizes[axis]:
            raise ColpipeError(f"{source.name}: {axis} is {sizes[axis]}, the target's {target[axis]} is more than that")
        if at_least and target[axis] < sizes[axis]:
            raise ColpipeError(
                f"{source.name}: {axis} is {sizes[axis]}, the target's {target[axis]} is less: it cannot grow to that "
                "losslessly; method nested can"
            )


def require_tied(source: Weights, tied: bool | None) -> bool:
    """Whether the result is tied; an untied head cannot become the embedding silently.

    Raises:
        ColpipeError: the source has a head of its own and the result is to have none.
    """
    if tied and not source.tied:
        raise ColpipeError(
            f"{source.name}: its head is not tied to the embedding, the target's is; set architecture.tied: false"
        )
    return source.tied if tied is None else tied
