"""LInit: a DesNet's first weights from its two neighbours of the learngene chain (§3.4), and the subset of one model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from colpipe.architectures import Family, family_of
from colpipe.errors import ColpipeError
from colpipe.learngene.gather import gather
from colpipe.learngene.selection import IndexMap, evenly_spaced, evenly_spaced_with, expand, nested, subset
from colpipe.learngene.weights import Weights, read_config

WIDTHS = ("head", "hidden", "ffn")  # axes that change with the width; `layer` is the depth


def take_subset(source: Path, target: Mapping[str, int]) -> tuple[dict[str, Tensor], dict, list[int]]:
    """A smaller model cut out of a larger one: evenly spaced layers, leading heads, channels and units.

    This is how a chain member inherits from its teacher.

    Args:
        source: folder of the larger model.
        target: size of every axis (`Architecture.sizes`).

    Returns:
        The tensors, the `config.json` mapping, and for each layer the source layer that it came from.

    Raises:
        ColpipeError: an axis of the target is larger than the source's, or the two cannot be matched.
    """
    config, family, sizes = _open(source)
    _require(source, sizes, target, at_most=True)
    layers = evenly_spaced(sizes["layer"], target["layer"])
    maps = {
        "layer": layers,
        **_vocabulary(sizes, target),
        **{axis: subset(sizes[axis], target[axis]) for axis in WIDTHS},
    }
    weights = Weights(source)
    tensors = {}
    for name, origin, pattern in _tensor_names(family, maps):
        tensors[name] = gather(weights[origin], pattern, sizes, maps)[0].contiguous()
    return tensors, family.resize(config, target), layers


def linit(
    smaller: Path,
    larger: Path,
    target: Mapping[str, int],
    alpha: float,
    method: str,
    layer_map: Sequence[int] | None = None,
) -> tuple[dict[str, Tensor], dict, dict]:
    """Interpolate two neighbours of the chain.

    `paper` (§3.4): θ = α · expand(smaller) + (1 − α) · subset(larger), on every axis the first indices of the larger, and
    all of the smaller with its last ones again.
    `nested`: θ = α · smaller + (1 − α) · larger where both have an index, the larger's own elsewhere. Layers correspond
    by `layer_map`.

    Args:
        smaller, larger: folders of the neighbours.
        target: size of every axis of the DesNet.
        alpha: weight of the smaller neighbour.
        method: `paper` or `nested`.
        layer_map: for each layer of the smaller, the larger's layer that it came from; None for neighbours that do not
            descend from each other, whose layers are then matched evenly spaced.

    Returns:
        The tensors in the larger's dtype (mixed in float32), the `config.json` mapping, and the index maps of both.

    Raises:
        ColpipeError: sizes or vocabularies that cannot be matched; the message names the axis and the sizes.
    """
    config, family, large = _open(larger)
    _, small_family, small = _open(smaller)
    if small_family is not family:
        raise ColpipeError(f"{smaller} is {small_family.name}, {larger} is {family.name}: neighbours share a family")
    _require(larger, large, target, at_most=True)
    _require(smaller, small, target, at_most=False)
    if method == "paper":
        from_large = {axis: subset(large[axis], target[axis]) for axis in ("layer", *WIDTHS)}
        from_small = {axis: expand(small[axis], target[axis]) for axis in ("layer", *WIDTHS)}
    elif method == "nested":
        came_from = list(layer_map) if layer_map else evenly_spaced(large["layer"], small["layer"])
        layers = evenly_spaced_with(came_from, large["layer"], target["layer"])
        from_large = {"layer": layers, **{axis: subset(large[axis], target[axis]) for axis in WIDTHS}}
        from_small = {
            "layer": [came_from.index(layer) if layer in came_from else None for layer in layers],
            **{axis: nested(small[axis], target[axis]) for axis in WIDTHS},
        }
    else:
        raise ColpipeError(f"method {method!r}: known are paper and nested")
    from_large |= _vocabulary(large, target)
    from_small |= _vocabulary(small, target)

    large_weights, small_weights = Weights(larger), Weights(smaller)
    origins = {name: origin for name, origin, _ in _tensor_names(family, from_small)}
    tensors = {}
    for name, origin, pattern in _tensor_names(family, from_large):
        source = large_weights[origin]
        value = gather(source.float(), pattern, large, from_large)[0]
        if origins.get(name) is not None:
            other, present = gather(small_weights[origins[name]].float(), pattern, small, from_small)
            value = torch.where(present, alpha * other + (1 - alpha) * value, value)
        tensors[name] = value.to(source.dtype).contiguous()
    return tensors, family.resize(config, target), {"smaller": _brief(from_small), "larger": _brief(from_large)}


def _open(folder: Path) -> tuple[dict, Family, dict[str, int]]:
    config = read_config(folder)
    family = family_of(config, f"{folder}/config.json")
    return config, family, family.sizes(config)


def _require(folder: Path, sizes: Mapping[str, int], target: Mapping[str, int], at_most: bool) -> None:
    if sizes["head_dim"] != target["head_dim"]:
        raise ColpipeError(
            f"{folder}: head_dim is {sizes['head_dim']}, the target's is {target['head_dim']}; heads are taken whole"
        )
    if sizes["position"] < target["position"]:
        raise ColpipeError(f"{folder}: has {sizes['position']} positions, the target needs {target['position']}")
    for axis in ("layer", *WIDTHS) if at_most else ():
        if target[axis] > sizes[axis]:
            raise ColpipeError(f"{folder}: {axis} is {sizes[axis]}, the target's {target[axis]} is more than that")


def _vocabulary(sizes: Mapping[str, int], target: Mapping[str, int]) -> dict[str, IndexMap]:
    """Rows past the tokenizer are padding: the target's vocabulary is a crop of the source's."""
    if target["vocabulary"] > sizes["vocabulary"]:
        raise ColpipeError(f"vocabulary {target['vocabulary']} is more than the source's {sizes['vocabulary']}")
    return {axis: subset(sizes[axis], target[axis]) for axis in ("vocabulary", "position")}


def _tensor_names(family: Family, maps: Mapping[str, IndexMap]):
    """(name in the target, name in the source or None, axes) of every tensor."""
    for template, pattern in family.tensors.items():
        if "{layer}" not in template:
            yield template, template, pattern
            continue
        for layer, origin in enumerate(maps["layer"]):
            yield template.format(layer=layer), None if origin is None else template.format(layer=origin), pattern


def _brief(maps: Mapping[str, IndexMap]) -> dict[str, object]:
    """Index maps for a manifest: a run of leading indices is written as its length."""
    return {axis: len(map_) if map_ == list(range(len(map_))) else map_ for axis, map_ in maps.items()}
