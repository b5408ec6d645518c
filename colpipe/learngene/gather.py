"""Changing a tensor's size: one gather over named axes, for every family and method."""

from collections.abc import Mapping

import torch
from einops import rearrange

from colpipe.architectures import Tensor
from colpipe.errors import ColpipeError
from colpipe.learngene.selection import IndexMap


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

    Runs of indices are views, so that a subset copies nothing before it is mixed.
    """
    for dimension, axis in enumerate(tensor.names):
        indices = maps.get(axis)
        if indices is None:
            continue
        if list(indices) == list(range(len(indices))):
            value = value.narrow(dimension, 0, len(indices))
        else:
            value = value.index_select(dimension, torch.tensor(indices))
    return value
