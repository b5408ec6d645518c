"""Elastic members: every shape between a member and its smallest one is a submodel, a model of its own inside the member.

A submodel has the leading heads, channels and units of the member, the layers that its smallest shape keeps and the most
important of the others (without a ranking: evenly spaced ones), and norm gains that make up for the channels it lacks.
Submodels are trained inside the member (`colpipe.training.elastic`) and cut out of it here, by the same maps.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colpipe.architectures.family import Family
from colpipe.architectures.layers import between
from colpipe.architectures.widths import alignment, head_step, hidden_step
from colpipe.errors import ColpipeError
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.importance import signal_gain
from colpipe.learngene.linit import take_subset
from colpipe.learngene.selection import Selection, leading
from colpipe.learngene.weights import Weights


@dataclass(frozen=True)
class ElasticMember:
    """How a member's submodels are taken.

    Attributes:
        smallest: size of every axis of the smallest shape.
        kept: the member's layers that the smallest shape has.
        compensate: exponent g of the factor (hidden of the member / hidden of the submodel)^g on norm gains.
        ranking: the member's layers, best first.
        energy: share of the normalised signal that the leading 1, 2, … channels carry, in an ordered chain.
    """

    smallest: Mapping[str, int]
    kept: Sequence[int]
    compensate: float
    ranking: Sequence[int] | None = None
    energy: Sequence[float] | None = None

    def submodel(self, family: Family, source: Mapping[str, int], target: Mapping[str, int]) -> tuple[Selection, float]:
        """What a submodel of size `target` takes from a member of size `source`, and the factor of its norm gains."""
        layers, gain = self.layers_and_gain(source, target)
        return Selection(layers, leading(family, source, target)), gain

    def layers_and_gain(self, source: Mapping[str, int], target: Mapping[str, int]) -> tuple[list[int], float]:
        """The member's layers that a submodel has, and the factor of its norm gains."""
        gain = signal_gain(self.energy, source["hidden"], target["hidden"])
        gain *= (source["hidden"] / target["hidden"]) ** self.compensate
        return between(self.kept, source["layer"], target["layer"], self.ranking), gain

    def require_within(self, name: str, family: Family, target: Mapping[str, int]) -> None:
        """Refuse a target that is smaller than what was trained.

        Raises:
            ColpipeError: names the axis and both sizes.
        """
        for axis in self._short(family, target):
            raise ColpipeError(
                f"{name}: its smallest trained shape has {axis} {self.smallest[axis]}, the target {target[axis]}; "
                "give the member a smaller elastic.smallest, or use method nested"
            )

    def reaches(self, family: Family, target: Mapping[str, int]) -> bool:
        """Whether a target is no smaller than what was trained."""
        return not self._short(family, target)

    def _short(self, family: Family, target: Mapping[str, int]) -> list[str]:
        return [axis for axis in ("layer", *family.widths) if target[axis] < self.smallest[axis]]

    def entry(self) -> dict[str, object]:
        """What the member's manifest says of it; ranking and energy have entries of their own."""
        return {"smallest": dict(self.smallest), "layers": list(self.kept), "compensate": self.compensate}


def cut(source: Weights, target: Mapping[str, int], elastic: ElasticMember, tied: bool | None = None) -> Assembly:
    """A DesNet, or the start of the next member, as a submodel of an elastic member.

    Raises:
        ColpipeError: the target is not between the member and its smallest shape.
    """
    elastic.require_within(source.name, source.family, target)
    layers, gain = elastic.layers_and_gain(source.sizes, target)
    assembly = take_subset(source, target, layers=layers, tied=tied, gain=gain)
    assembly.details.update(method="cut", gain=gain)
    return assembly


def random_sizes(
    family: Family,
    largest: Mapping[str, int],
    smallest: Mapping[str, int],
    generator: random.Random,
    joint: bool = False,
    axes: Sequence[str] = ("layers", "heads", "hidden", "ffn"),
    align: int | None = None,
) -> dict[str, int]:
    """A shape between two others that the family has models of.

    Args:
        largest, smallest: size of every axis.
        joint: whether all widths are the same share of the way from the smallest to the largest.
        axes: those that change; where a family ties its width to its heads, either moves both.
        align: what hidden and ffn are multiples of, as `architecture.align`; those of the two shapes stay as they are.
    """
    unit = alignment(align, smallest["hidden"])
    head = "group" if "group" in family.widths else "head"
    tied_width = "head_dim" not in family.keys
    for _ in range(100):
        common = generator.random()

        def draw(axis: str, step: int = 1, common: float = common) -> int:
            low, high = smallest[axis], largest[axis]
            share = common if joint and axis != "layer" else generator.random()
            return min(high, max(low, step * round((low + share * (high - low)) / step)))

        sizes = dict(largest)
        if "layers" in axes:
            sizes["layer"] = draw("layer")
        if "heads" in axes or (tied_width and "hidden" in axes):
            sizes[head] = draw(head, head_step(family, largest, unit))
            sizes["group"] = sizes[head]
            sizes["head"] = sizes[head] * (sizes["query"] if head == "group" else 1)
        if tied_width:
            sizes["hidden"] = sizes["head"] * sizes["head_dim"]
        elif "hidden" in axes:
            sizes["hidden"] = draw("hidden", hidden_step(family, sizes["head"], unit))
        if "ffn" in axes:
            sizes["ffn"] = draw("ffn", unit)
        if family.shape_problem(sizes) is None and sizes["hidden"] >= smallest["hidden"]:
            return sizes
    return dict(largest)
