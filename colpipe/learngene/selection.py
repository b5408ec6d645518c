"""Index maps: which index of a source model each index of a target model comes from, axis by axis.

A map is a list as long as the target's axis; an entry is a source index, or None where the source has nothing to give.
"""

from collections.abc import Sequence

IndexMap = list[int | None]


def subset(source: int, target: int) -> IndexMap:
    """The first `target` indices (§3.4: "extract the first 14 layers")."""
    return list(range(min(source, target)))


def expand(source: int, target: int) -> IndexMap:
    """All indices, then the last ones again (§3.4: "replicate the last 2 layers"): 0 … 11, 10, 11 for 12 → 14."""
    missing = target - source
    if missing <= 0:
        return subset(source, target)
    repeats = -(-missing // source)
    return list(range(source)) + (list(range(source)) * repeats)[-missing:]


def evenly_spaced(source: int, target: int) -> IndexMap:
    """`target` indices spread over the source, the first and the last among them."""
    if target == 1:
        return [0]
    return [round(position * (source - 1) / (target - 1)) for position in range(target)]


def evenly_spaced_with(kept: Sequence[int], source: int, target: int) -> IndexMap:
    """`target` source indices that contain `kept`, the rest spread evenly over what is left.

    A target shorter than `kept` takes an evenly spaced part of it.
    """
    if target <= len(kept):
        return [kept[position] for position in evenly_spaced(len(kept), target)]
    others = [index for index in range(source) if index not in set(kept)]
    added = [others[position] for position in evenly_spaced(len(others), target - len(kept))]
    return sorted([*kept, *added])


def nested(size: int, target: int) -> IndexMap:
    """Identity on the first `size` indices, None beyond: where a smaller neighbour has nothing to give."""
    return [index if index < size else None for index in range(target)]
