"""Changing a tensor's size: one gather over named axes, for every family and method."""

import re
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from colpipe.errors import ColpipeError
from colpipe.learngene.selection import IndexMap


def named_axes(pattern: str) -> list[str]:
    """Axes of an einops pattern in order: `hidden (qkv head head_dim)` → hidden, qkv, head, head_dim."""
    return re.findall(r"\w+", pattern)


def gather(
    tensor: Tensor, pattern: str, sizes: Mapping[str, int], maps: Mapping[str, IndexMap]
) -> tuple[Tensor, Tensor]:
    """Take the mapped indices of every named axis.

    Args:
        tensor: as stored, its shape described by `pattern`.
        pattern: einops pattern of the stored tensor.
        sizes: size of every axis in the source model.
        maps: axis → index map; axes without one are taken whole.

    Returns:
        The tensor with the target's sizes, stored as before, and a boolean tensor of the same shape that is False where
        the source had nothing to give (the value there is 0).

    Raises:
        ColpipeError: the tensor does not have the shape that the axes say.
    """
    axes = named_axes(pattern)
    opened = " ".join(axes)
    try:
        value = rearrange(tensor, f"{pattern} -> {opened}", **{axis: sizes[axis] for axis in axes})
    except Exception:
        expected = {axis: sizes[axis] for axis in axes}
        raise ColpipeError(f"a tensor of shape {tuple(tensor.shape)} is not '{pattern}' with {expected}") from None
    present = torch.ones([], dtype=torch.bool)
    for dimension, axis in enumerate(axes):
        indices = maps.get(axis, list(range(sizes[axis])))
        value = value.index_select(dimension, torch.tensor([0 if index is None else index for index in indices]))
        here = torch.tensor([index is not None for index in indices])
        present = present & here.reshape([-1] + [1] * (len(axes) - dimension - 1))
    present = present.expand(value.shape)
    value = value * present
    return rearrange(value, f"{opened} -> {pattern}"), rearrange(present, f"{opened} -> {pattern}")
