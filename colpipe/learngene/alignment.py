"""Put a larger model's channels, heads and units into the order of the smaller ones that they resemble most.

A permutation of residual channels, of heads and of feed-forward units leaves a model's function unchanged, and is the only
such freedom that LayerNorm models have. Neighbours that were trained apart may use different orders, and mixing channels
that do not correspond destroys both. Matching needs no data: channels by the columns of the shared token embedding, then
heads and units by the weights that meet those channels (as git re-basin does).
"""

from collections.abc import Sequence

import torch

from colpipe.learngene.selection import Selection
from colpipe.learngene.weights import Weights


def align(larger: Weights, smaller: Weights, selection: Selection, came_from: Sequence[int]) -> Selection:
    """The selection of the larger's leading indices, its axes reordered to follow the smaller.

    Args:
        larger, smaller: the neighbours.
        selection: what would be taken without alignment; its lengths are kept.
        came_from: for each layer of the smaller, the larger's layer that it is mixed with.

    Returns:
        The same selection with an order for `hidden` and, in each matched layer, for `head` or `group` and for `ffn`.
    """
    family = larger.family
    embedding = next(name for name, tensor in family.tensors.items() if tensor.role == "embed")
    vocabulary = min(larger.sizes["vocabulary"], smaller.sizes["vocabulary"])
    both = [weights.read(embedding)[:vocabulary].float() for weights in (larger, smaller)]
    hidden = _match(*(_standardised(value.T) for value in both))
    axes = {**selection.axes, "hidden": hidden[: len(selection.axes["hidden"])]}

    by_layer = {}
    for axis in [axis for axis in family.widths if axis in ("head", "group", "ffn")]:
        count = len(selection.axes[axis])
        orders = [list(range(larger.sizes[axis])) for _ in range(larger.sizes["layer"])]
        for layer, origin in enumerate(came_from):
            large = _features(larger, axis, origin, hidden[: smaller.sizes["hidden"]])
            small = _features(smaller, axis, layer, list(range(smaller.sizes["hidden"])))
            orders[origin] = _match(_standardised(large), _standardised(small))
        by_layer[axis] = [order[:count] for order in orders]
        axes.pop(axis)
    return Selection(selection.layers, axes, by_layer)


def _features(weights: Weights, axis: str, layer: int, hidden: Sequence[int]) -> torch.Tensor:
    """A row per index of an axis: every weight of the layer that it shares with the given channels."""
    at = Selection([layer], {"hidden": hidden})
    rows = []
    for name, tensor in weights.family.tensors.items():
        if "{layer}" in name and axis in tensor.names and "hidden" in tensor.names:
            value = weights.take(name, 0, at).float()
            rows.append(value.movedim(tensor.names.index(axis), 0).flatten(1))
    return torch.cat(rows, 1)


def _standardised(rows: torch.Tensor) -> torch.Tensor:
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _match(large: torch.Tensor, small: torch.Tensor) -> list[int]:
    """Order of the larger's rows: first the partner of each of the smaller's, then the others as they were."""
    from scipy.optimize import linear_sum_assignment  # spared the other methods of LInit

    _, partners = linear_sum_assignment((small @ large.T).double().numpy(), maximize=True)
    first = partners.tolist()
    return [*first, *(index for index in range(len(large)) if index not in set(first))]
