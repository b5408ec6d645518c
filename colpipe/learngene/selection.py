"""Index maps: which index of a source model each index of a target model comes from, axis by axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from colpipe.architectures.family import Family
from colpipe.errors import ColpipeError

IndexMap = Sequence[int]


@dataclass(frozen=True)
class Selection:
    """What is taken from one source model.

    Attributes:
        layers: for each layer of the target, the source's layer, or None where the source has nothing to give.
        axes: axis → the source's indices, in the target's order; axes that are left out are taken whole. A map that is
            shorter than the target's axis gives its leading part.
        by_layer: axis → such a map for each of the source's layers, for orders that differ from layer to layer.
    """

    layers: Sequence[int | None]
    axes: Mapping[str, IndexMap]
    by_layer: Mapping[str, Sequence[IndexMap]] = field(default_factory=dict)

    def at(self, layer: int | None) -> dict[str, IndexMap]:
        """Axis → indices for the tensors of one source layer; None: for those outside the layers."""
        within = {axis: maps[layer] for axis, maps in self.by_layer.items()} if layer is not None else {}
        return {**self.axes, **within}

    def brief(self) -> dict[str, object]:
        """For a manifest: a run of leading indices is written as its length."""

        def short(indices: Sequence) -> object:
            return len(indices) if list(indices) == list(range(len(indices))) else list(indices)

        maps = {"layer": short(self.layers), **{axis: short(indices) for axis, indices in self.axes.items()}}
        return {**maps, **{axis: [short(indices) for indices in rows] for axis, rows in self.by_layer.items()}}


def leading(family: Family, source: Mapping[str, int], target: Mapping[str, int]) -> dict[str, range]:
    """The leading indices of every axis, as many as the target has or the source can give."""
    return {axis: range(min(source[axis], target[axis])) for axis in ("vocabulary", "position", *family.widths)}


def subset(source: int, target: int) -> list[int]:
    """The first `target` indices, or all there are (§3.4: "extract the first 14 layers")."""
    return list(range(min(source, target)))


def expand(source: int, target: int) -> list[int]:
    """All indices, then the last ones again (§3.4: "replicate the last 2 layers"): 0 … 11, 10, 11 for 12 → 14."""
    missing = target - source
    if missing <= 0:
        return subset(source, target)
    repeats = -(-missing // source)
    return list(range(source)) + (list(range(source)) * repeats)[-missing:]


def tile(source: int, target: int) -> list[int]:
    """All indices, over and over (HyperCloning)."""
    return [index % source for index in range(target)]


def evenly_spaced(source: int, target: int) -> list[int]:
    """`target` indices spread over the source, the first and the last among them."""
    if target == 1:
        return [0]
    return [round(position * (source - 1) / (target - 1)) for position in range(target)]


def keep_layers(select: str, source: int, target: int, ranking: Sequence[int] | None = None) -> list[int]:
    """Layers that a subset keeps: the `first`, `even`ly spaced, or (`rank`, `rotate`) the best of a ranking, in order.

    Raises:
        ColpipeError: there is no ranking to take the best of.
    """
    if select == "first":
        return subset(source, target)
    if select == "even":
        return evenly_spaced(source, target)
    if not ranking:
        raise ColpipeError(f"select {select!r}: the source's layers have no ranking; first and even need none")
    return sorted(ranking[:target])


def between(kept: Sequence[int], source: int, target: int, ranking: Sequence[int] | None = None) -> list[int]:
    """`target` source layers that contain `kept`, those that a smaller neighbour came from.

    The rest are the best of the ranking or, without one, spread evenly over what is left. A target shorter than `kept`
    takes the best of it, or an evenly spaced part.
    """
    if target <= len(kept):
        among = [kept.index(layer) for layer in ranking if layer in kept] if ranking else None
        return [kept[position] for position in _best_or_even(len(kept), target, among)]
    others = [layer for layer in range(source) if layer not in set(kept)]
    among = [others.index(layer) for layer in ranking if layer in others] if ranking else None
    added = _best_or_even(len(others), target - len(kept), among)
    return sorted([*kept, *(others[position] for position in added)])


def _best_or_even(source: int, target: int, ranking: Sequence[int] | None) -> list[int]:
    return keep_layers("rank" if ranking else "even", source, target, ranking)
