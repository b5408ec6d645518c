"""Index maps: which index of a source model each index of a target model comes from, axis by axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from colpipe.architectures.family import Family

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
