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
        factor: of what it writes, when that is added to the stream.
        norm: that what it writes goes through first, with its gain; None: none.
    """

    module: torch.nn.Module
    weight: str
    bias: str | None
    outward: bool
    factor: float = 1.0
    norm: "Norm | None" = None

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
        """The same for the bias, (hidden,): what it adds to the stream, and what is left of that."""
        return self.factor * _added(self.module.bias, change / self.factor, dtype)

    def heard(self, inputs: Tensor) -> Tensor:
        """What it reads, (tokens, inside), so that the stream is changed by this times a change of its weight. Behind it, a
        norm divides by the root mean square of what it writes now, and the gain comes on top."""
        if self.norm is not None:
            return inputs / self.norm.size(self.module(inputs))
        return inputs if self.factor == 1 else inputs * self.factor

    def stored(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Name → tensor, as it will be stored."""
        named = {self.weight: self.module.weight} | ({self.bias: self.module.bias} if self.bias else {})
        named |= {self.norm.name: self.norm.module.weight} if self.norm else {}
        return {name: value.to("cpu", dtype, copy=True) for name, value in named.items()}


@dataclass(frozen=True)
class Norm:
    """An RMSNorm behind a block.

    Attributes:
        module: it.
        name: of its gain.
        offset: what it adds to the gain as it is stored.
        epsilon: what it adds to the mean square.
    """

    module: torch.nn.Module
    name: str
    offset: float
    epsilon: float

    @property
    def gain(self) -> Tensor:
        """What it multiplies by, (hidden,)."""
        return self.module.weight + self.offset

    def set_gain(self, gain: Tensor, dtype: torch.dtype) -> None:
        """Change what it multiplies by, rounded as it will be stored."""
        self.module.weight.copy_((gain - self.offset).to(dtype))

    def size(self, written: Tensor) -> Tensor:
        """What it divides by, (tokens, 1)."""
        return (written.square().mean(1, keepdim=True) + self.epsilon).sqrt()


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
    config = model.config.to_dict()
    norm = None
    if into := family.tensors[name].into:
        gain = into.format(layer=layer)
        module = model.get_submodule(gain.rpartition(".")[0])
        norm = Norm(module, gain, family.tensors[into].offset, family.epsilon(config)[1])
    return Writer(
        model.get_submodule(name.format(layer=layer).rpartition(".")[0]),
        name.format(layer=layer),
        bias.format(layer=layer) if bias in family.tensors else None,
        family.tensors[name].names[0] == "hidden",
        family.write_factor(config),
        norm,
    )


def parent(model, tensor: str) -> torch.nn.Module:
    """The module that a tensor's module is part of: the whole attention, the whole feed-forward part."""
    return model.get_submodule(tensor.rsplit(".", 2)[0])
