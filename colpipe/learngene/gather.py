"""Changing a tensor's size: one gather over named axes, for every family and method."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from einops import rearrange

from colpipe.architectures import Tensor
from colpipe.errors import ColpipeError
from colpipe.learngene.selection import IndexMap

FEW = 8  # runs of indices that are put together piece by piece


def open_axes(value: torch.Tensor, tensor: Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
    """A stored tensor with one dimension per named axis, in the order of `tensor.names`; a view.

    Raises:
        ColpipeError: the tensor does not have the shape that the axes say.
    """
    expected = {axis: sizes[axis] for axis in tensor.names}
    try:
        return rearrange(value, f"{tensor.axes} -> {' '.join(tensor.names)}", **expected)
    except Exception:
        raise ColpipeError(f"a tensor of shape {tuple(value.shape)} is not '{tensor.axes}' with {expected}") from None


def close_axes(value: torch.Tensor, tensor: Tensor) -> torch.Tensor:
    """The inverse of `open_axes`: as the tensor is stored."""
    return rearrange(value, f"{' '.join(tensor.names)} -> {tensor.axes}").contiguous()


def gather(value: torch.Tensor, tensor: Tensor, maps: Mapping[str, IndexMap]) -> torch.Tensor:
    """Take the mapped indices of every named axis of an opened tensor; axes without a map are taken whole.

    A run of indices is a view, so that a subset copies nothing before it is mixed; a few runs, as an expansion has them, are
    put together by copying them whole, which is several times faster than index by index.
    """
    for dimension, axis in enumerate(tensor.names):
        if axis not in maps:
            continue
        pieces = runs(tuple(maps[axis]))
        if len(pieces) == 1:
            value = value.narrow(dimension, *pieces[0])
        elif len(pieces) <= FEW:
            value = torch.cat([value.narrow(dimension, *piece) for piece in pieces], dimension)
        else:
            value = value.index_select(dimension, torch.tensor(maps[axis]))
    return value


@lru_cache(maxsize=64)  # the same few maps serve every layer
def runs(indices: tuple[int, ...]) -> list[tuple[int, int]]:
    """(start, length) of the runs of consecutive indices: 0 1 2 3 2 3 → (0, 4), (2, 2)."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and index == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found
