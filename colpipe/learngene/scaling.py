"""Stored weights in the scale that the residual stream and the logits see, and back.

Most families use their weights as they are stored. Gemma stores gains as what they differ from 1 by, and multiplies its
embeddings by the root of its width: what it stores means something else at another width. Whatever is taken from a model is
therefore scaled to what its function sees, and what is made of it is stored as a model of the new sizes wants it.
"""

from torch import Tensor

from colpipe.architectures.family import Family


def as_used(value: Tensor, family: Family, name: str, hidden: int, tied: bool) -> Tensor:
    """A stored tensor, or a part of it, as the function uses it.

    Args:
        name: in the table, with `{layer}`.
        hidden: channels of the model that stores it.
        tied: whether its head is its embedding.

    Returns:
        The tensor itself where it is used as it is stored, otherwise one in float32 at least.
    """
    offset, factor = family.tensors[name].offset, family.factor(name, hidden, tied)
    if offset:
        value = _real(value) + offset
    return value if factor == 1 else _real(value) * factor


def as_stored(value: Tensor, family: Family, name: str, hidden: int, tied: bool) -> Tensor:
    """The inverse of `as_used`."""
    offset, factor = family.tensors[name].offset, family.factor(name, hidden, tied)
    if factor != 1:
        value = _real(value) / factor
    return _real(value) - offset if offset else value


def stored_again(
    value: Tensor, family: Family, name: str, tied: bool, before: int, after: int, gain: float = 1.0
) -> Tensor:
    """A stored tensor as a model of another width stores the same, times `gain`; itself where that changes nothing.

    Args:
        before, after: channels of the two models, of which both or none ties its head.
    """
    offset = family.tensors[name].offset
    factor = gain * family.factor(name, before, tied) / family.factor(name, after, tied)
    if factor == 1:
        return value
    return (_real(value) + offset) * factor - offset if offset else value * factor


def _real(value: Tensor) -> Tensor:
    return value if value.dtype.itemsize > 4 else value.float()
