"""Which layers, or other indices, of a source a target of another size takes (no torch here)."""

from collections.abc import Sequence

from colpipe.errors import ColpipeError

WITHOUT_ROPE = 4  # llama.cpp turns nothing in every 4th layer of a SmolLM3, and has no key for it


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


def window_period(kinds: Sequence[str]) -> int | None:
    """Number of layers of which the last has full attention and the others a window, of the kinds of all layers; one more
    than there are where none has, and None where they follow each other otherwise."""
    full = [kind == "full_attention" for kind in kinds]
    period = (*full, True).index(True) + 1
    return period if full == [(layer + 1) % period == 0 for layer in range(len(full))] else None


def rotary_in_llama_cpp(depth: int) -> list[int]:
    """`no_rope_layers` of a SmolLM3 as llama.cpp has them whatever a file says: 1 for a layer with rotary positions."""
    return [int((layer + 1) % WITHOUT_ROPE > 0) for layer in range(depth)]
