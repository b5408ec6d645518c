"""The projections of a loaded model that write into its residual stream: what they are, and how they are changed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from colpipe.architectures.family import Family


@dataclass(frozen=True)
class Writer:
    """A projection into the residual stream, of one layer of the cut.

    Attributes:
        module: a linear one.
        weight, bias: names of its tensors; None: it has no bias.
        outward: whether its weight is stored as (hidden, inside), and not (inside, hidden).
    """

    module: torch.nn.Module
    weight: str
    bias: str | None
    outward: bool

    @property
    def inward(self) -> Tensor:
        """Its weight as (inside, hidden)."""
        return self.module.weight.T if self.outward else self.module.weight

    @property
    def inside(self) -> int:
        return len(self.inward)

    def add(self, change: Tensor, dtype: torch.dtype) -> Tensor:
        """Add (hidden, inside) to the weight, rounded as it will be stored; the change that is left of it."""
        return _added(self.inward.T, change, dtype)

    def shift(self, change: Tensor, dtype: torch.dtype) -> Tensor:
        """The same for the bias, (hidden,)."""
        return _added(self.module.bias, change, dtype)

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Name → tensor, as it will be stored."""
        named = {self.weight: self.module.weight} | ({self.bias: self.module.bias} if self.bias else {})
        return {name: value.to("cpu", dtype, copy=True) for name, value in named.items()}


def _added(value: Tensor, change: Tensor, dtype: torch.dtype) -> Tensor:
    """Add in float64, on the CPU as the change is: Ascend NPUs compute little in it."""
    rounded = (value.to("cpu", torch.float64) + change).to(dtype).to(value.device, value.dtype)
    difference = rounded - value
    value.copy_(rounded)
    return difference


def writer_of(model, family: Family, axis: str, layer: int) -> Writer:
    """What writes that which has an axis (`head`, `group`, `ffn`) into the stream."""
    name = next(name for name, tensor in family.tensors.items() if tensor.role == "write" and axis in tensor.names)
    bias = name.removesuffix("weight") + "bias"
    return Writer(
        model.get_submodule(name.format(layer=layer).rpartition(".")[0]),
        name.format(layer=layer),
        bias.format(layer=layer) if bias in family.tensors else None,
        family.tensors[name].names[0] == "hidden",
    )


def parent(model, tensor: str) -> torch.nn.Module:
    """The module that a tensor's module is part of: the whole attention, the whole feed-forward part."""
    return model.get_submodule(tensor.rsplit(".", 2)[0])
