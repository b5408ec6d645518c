"""Changing a tensor's size: one gather over named axes, for every family and method."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

import torch
from einops import rearrange

from colpipe.architectures.family import TensorSpec
from colpipe.errors import ColpipeError
from colpipe.learngene.selection import IndexMap

FEW = 8  # runs of indices that are put together piece by piece


def open_axes(value: torch.Tensor, tensor: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    """A stored tensor with one dimension per named axis, in the order of `tensor.names`; a view.

    Raises:
        ColpipeError: the tensor does not have the shape that the axes say.
    """
    expected = {axis: sizes[axis] for axis in tensor.names}
    try:
        return rearrange(value, f"{tensor.axes} -> {' '.join(tensor.names)}", **expected)
    except Exception:
        raise ColpipeError(f"a tensor of shape {tuple(value.shape)} is not '{tensor.axes}' with {expected}") from None


def join_axes(value: torch.Tensor, tensor: TensorSpec) -> torch.Tensor:
    """The inverse of `open_axes`; a view where it can be."""
    return rearrange(value, f"{' '.join(tensor.names)} -> {tensor.axes}")


def close_axes(value: torch.Tensor, tensor: TensorSpec) -> torch.Tensor:
    """The inverse of `open_axes`: as the tensor is stored."""
    return join_axes(value, tensor).contiguous()


def gather(value: torch.Tensor, tensor: TensorSpec, maps: Mapping[str, IndexMap]) -> torch.Tensor:
    """Take the mapped indices of every named axis of an opened tensor; axes without a map are taken whole."""
    return next(gather_rows(value, tensor, maps, None))


def gather_rows(
    value: torch.Tensor, tensor: TensorSpec, maps: Mapping[str, IndexMap], rows: int | None
) -> Iterator[torch.Tensor]:
    """What `gather` gives, so many indices of the first axis at a time (None: all at once).

    A run of indices is a view, so that a subset copies nothing before it is mixed; a few runs, as an expansion has them, are
    put together by copying them whole, which is several times faster than index by index.
    """
    first, *others = tensor.names
    wanted = maps.get(first, range(len(value)))
    pieces = [(axis, compact(maps[axis])) for axis in others if axis in maps]
    rows = rows or len(wanted)
    for start in range(0, len(wanted), rows):
        part = value
        for axis, piece in [(first, compact(wanted[start : start + rows])), *pieces]:
            part = _pick(part, tensor.names.index(axis), piece)
        yield part


def _pick(value: torch.Tensor, dimension: int, pieces: list[tuple[int, int]] | torch.Tensor) -> torch.Tensor:
    if isinstance(pieces, torch.Tensor):
        return value.index_select(dimension, pieces.to(value.device))
    if len(pieces) == 1:
        return value.narrow(dimension, *pieces[0])
    return torch.cat([value.narrow(dimension, *piece) for piece in pieces], dimension)


def compact(indices: IndexMap) -> list[tuple[int, int]] | torch.Tensor:
    """The runs of an index map or, where they are many, its indices."""
    if isinstance(indices, range) and indices.step == 1:
        return [(indices.start, len(indices))]
    pieces = runs(tuple(indices))
    return pieces if len(pieces) <= FEW else torch.tensor(indices)


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
