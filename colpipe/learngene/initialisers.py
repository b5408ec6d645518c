"""The other ways to give a model its first weights: the paper's baselines, each an `Assembly`.

single              expand the smaller neighbour alone (Tables 4 and 5); with method `lossless`, without changing it
hypercloning        widen by whole multiples, the function unchanged (Table 11)
auto-learngene      the ancestor's first three layers, random ones after them (Table 9)
vanilla-learngene   random layers, the ancestor's last three after them (Table 9)
rand                transformers' random initialisation
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch

from colpipe.architectures.layers import expand, subset, tile
from colpipe.config.parts import InitialiserKind
from colpipe.errors import ColpipeError
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.linit import Growth, lossless_growth, mixture, require_compatible, take_subset, thinned
from colpipe.learngene.selection import Selection
from colpipe.learngene.weights import Weights

# All but LInit, which takes two neighbours, and a distillation.
KINDS = tuple(kind for kind in get_args(InitialiserKind) if kind not in ("linit", "distilled"))
LEARNGENE_LAYERS = 3  # what Auto- and Vanilla-LearnGene take from the ancestor (Appendix I)


def make(
    kind: str,
    source: Weights,
    target: Mapping[str, int],
    method: str = "paper",
    select: str = "even",
    seed: int = 0,
    ranking: Sequence[int] | None = None,
) -> Assembly:
    """One of the initialisers by its name, all from one source.

    Args:
        kind: one of `KINDS`.
        method: of `single`.
        select, ranking: of `subset`, as in `take_subset`.
        seed: of random weights.
    """
    match kind:
        case "rand":
            config = source.family.resize(source.config, target, source.tied)
            return rand(config, seed, source.dtype)
        case "single":
            if method not in ("paper", "lossless"):
                raise ColpipeError(f"method {method!r}: single has paper and lossless")
            return single(source, target, method)
        case "subset":
            if select not in ("first", "even", "rank", "rotate"):
                raise ColpipeError(f"select {select!r}: known are first, even, rank, rotate")
            return take_subset(source, target, select, ranking)
        case "hypercloning":
            return hypercloning(source, target)
        case "auto-learngene" | "vanilla-learngene":
            return learngene(source, target, last=kind == "vanilla-learngene", seed=seed)
    raise ColpipeError(f"kind {kind!r}: known are {', '.join(KINDS)}; linit takes two neighbours")


def single(smaller: Weights, target: Mapping[str, int], method: str = "paper") -> Assembly:
    """The smaller neighbour alone, grown to the target.

    Args:
        method: `paper`: every axis as in LInit's expansion; `lossless`: its function unchanged, the copies where they
            cannot be seen.

    Raises:
        ColpipeError: the target cannot be made from it, or `lossless` was to shrink an axis.
    """
    lossless = method == "lossless"
    require_compatible(smaller, target, at_least=lossless)
    copies = Selection(
        expand(smaller.sizes["layer"], target["layer"]),
        {
            axis: expand(smaller.sizes[axis], target[axis])
            for axis in ("vocabulary", "position", *smaller.family.widths)
        },
    )
    config = smaller.family.resize(smaller.config, target, smaller.tied, copies.layers)
    if lossless:
        own = Selection(
            [layer if layer < smaller.sizes["layer"] else None for layer in range(target["layer"])],
            {axis: subset(smaller.sizes[axis], target[axis]) for axis in copies.axes},
        )
        ones = dict.fromkeys([None, *range(target["layer"])], 1.0)
        key, epsilon = smaller.family.epsilon(smaller.config)
        config[key] = thinned(epsilon, smaller, target)
        growth = Growth(lossless_growth(smaller, target), (config[key] / epsilon) ** 0.5 if epsilon else 1.0)
        value = mixture(smaller, copies, smaller, own, ones, growth=growth)
    else:

        def value(name: str, layer: int | None) -> torch.Tensor:
            return smaller.take(name, layer, copies).float()

    details = {"method": method, "index_maps": {"smaller": copies.brief()}}
    return Assembly(smaller.family, target, smaller.tied, config, smaller.dtype, value, details, [smaller])


def hypercloning(source: Weights, target: Mapping[str, int]) -> Assembly:
    """Every width times a whole number, the function unchanged; added layers write nothing.

    Readers are divided by the number of copies of what they read. A tied head cannot be, without changing the embedding;
    the final norm is divided instead.

    Raises:
        ColpipeError: an axis is not a whole multiple, or there are fewer layers.
    """
    require_compatible(source, target, at_least=True, whole_groups=False)
    family, sizes = source.family, source.sizes
    for axis in family.widths:
        if target[axis] % sizes[axis]:
            raise ColpipeError(
                f"{source.name}: {axis} is {sizes[axis]}, the target's {target[axis]} is not a whole multiple of it; "
                "HyperCloning only multiplies"
            )
    copies = Selection(
        expand(sizes["layer"], target["layer"]),
        {
            **{axis: subset(sizes[axis], target[axis]) for axis in ("vocabulary", "position")},
            **{axis: tile(sizes[axis], target[axis]) for axis in family.widths},
        },
    )
    final = family.final_gain.removesuffix(".weight")

    def value(name: str, layer: int | None) -> torch.Tensor:
        tensor = family.tensors[name]
        taken = source.take(name, layer, copies).float()
        if tensor.role in ("read", "head"):
            return taken * (sizes["hidden"] / target["hidden"])
        if tensor.role == "write":
            if layer is not None and layer >= sizes["layer"]:
                return torch.zeros_like(taken)
            for axis in set(tensor.names) & {"head", "group", "query", "ffn"}:
                taken = taken * (sizes[axis] / target[axis])
        if source.tied and name.startswith(final):
            return taken * (sizes["hidden"] / target["hidden"])
        return taken

    config = family.resize(source.config, target, source.tied, copies.layers)
    details = {"index_maps": {"source": copies.brief()}}
    return Assembly(family, target, source.tied, config, source.dtype, value, details, [source])


def learngene(ancestor: Weights, target: Mapping[str, int], last: bool, seed: int = 0) -> Assembly:
    """Auto-LearnGene (the first layers) or Vanilla-LearnGene (the last): layers of the ancestor's width, others random.

    Embeddings and the final norm are the ancestor's.

    Raises:
        ColpipeError: the target has another width than the ancestor, or fewer layers than are taken.
    """
    family, depth = ancestor.family, ancestor.sizes["layer"]
    require_compatible(ancestor, target)
    for axis in family.widths:
        if target[axis] != ancestor.sizes[axis]:
            raise ColpipeError(
                f"{ancestor.name}: {axis} is {ancestor.sizes[axis]}, the target's is {target[axis]}; "
                "a layer of the ancestor is taken as it is"
            )
    kept, count = min(LEARNGENE_LAYERS, depth), target["layer"]
    if count < kept:
        raise ColpipeError(f"the target has {count} layers, {kept} are taken from {ancestor.name}")
    layers = (
        [None] * (count - kept) + list(range(depth - kept, depth)) if last else [*range(kept), *[None] * (count - kept)]
    )
    chosen = Selection(
        layers, {axis: subset(ancestor.sizes[axis], target[axis]) for axis in ("vocabulary", "position")}
    )
    config = family.resize(ancestor.config, target, ancestor.tied, layers)
    random = rand(config, seed)

    def value(name: str, layer: int | None) -> torch.Tensor:
        if layer is not None and layers[layer] is None:
            return random.value(name, layer)
        return ancestor.take(name, layer, chosen).float()

    details = {"index_maps": {"ancestor": chosen.brief()}}
    return Assembly(family, target, ancestor.tied, config, ancestor.dtype, value, details, [ancestor])


def rand(config: Mapping, seed: int = 0, dtype: torch.dtype = torch.float32) -> Assembly:
    """transformers' random initialisation of a `config.json` mapping; seeded."""
    from colpipe.hf.models import random_model  # seconds, spared the others

    model = Weights(random_model(dict(config), seed))
    everything = Selection(range(model.sizes["layer"]), {})

    def value(name: str, layer: int | None) -> torch.Tensor:
        return model.take(name, layer, everything).float()

    return Assembly(model.family, model.sizes, model.tied, dict(config), dtype, value, sources=[model])
