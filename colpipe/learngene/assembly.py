"""A model about to be made: its configuration, and a function that gives each of its tensors."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from colpipe.architectures.family import Family
from colpipe.errors import ColpipeError
from colpipe.learngene.gather import close_axes
from colpipe.learngene.scaling import as_stored
from colpipe.learngene.selection import Selection
from colpipe.learngene.stored import is_finite
from colpipe.learngene.weights import Weights, stored_shape, write_model


@dataclass(frozen=True)
class Assembly:
    """A model that is computed tensor by tensor, when it is written or loaded.

    Attributes:
        sizes: size of every axis.
        config: `config.json` mapping.
        dtype: in which it is stored; tensors are computed in float32.
        value: (name in the table, layer or None) → the tensor as it is used (`scaling.py`) with one dimension per named
            axis, or its parts along the first axis, one after the other.
        details: what a manifest records: method, alpha, index maps.
        sources: the models that the tensors are taken from.
        selection: what is taken, where it is a subset of one source.
    """

    family: Family
    sizes: Mapping[str, int]
    tied: bool
    config: dict
    dtype: torch.dtype
    value: Callable[[str, int | None], torch.Tensor | Iterator[torch.Tensor]]
    details: dict = field(default_factory=dict)
    sources: Sequence[Weights] = ()
    selection: Selection | None = None

    @property
    def parameters(self) -> int:
        return self.family.parameters(self.sizes, self.tied)

    def names(self) -> Iterator[tuple[str, list[str], int | None]]:
        """(stored name, names in the table, both with `{layer}`, layer or None) of every stored tensor, layer by layer."""
        table = list(self.family.stored_names(self.tied))
        repeated = [entry for entry in table if "{layer}" in entry[0]]
        yield from ((*entry, None) for entry in table if entry not in repeated)
        yield from ((*entry, layer) for layer in range(self.sizes["layer"]) for entry in repeated)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every stored tensor."""
        shapes = {}
        for stored, names, layer in self.names():
            parts = [stored_shape(self.family.tensors[name], self.sizes) for name in names]
            shapes[stored.format(layer=layer)] = (sum(part[0] for part in parts), *parts[0][1:])
        return shapes

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor as stored) one after the other."""
        for stored, parts in self._stored():
            yield stored, torch.cat(list(parts))

    def _stored(self) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
        """(name, parts along the first dimension, as stored) of every tensor."""
        for stored, names, layer in self.names():
            yield (
                stored.format(layer=layer),
                itertools.chain.from_iterable(self._parts(name, layer) for name in names),
            )

    def _parts(self, name: str, layer: int | None) -> Iterator[torch.Tensor]:
        """A tensor of the table as stored, in parts along its first dimension."""
        value = self.value(name, layer)
        for part in [value] if isinstance(value, torch.Tensor) else value:
            scaled = as_stored(part, self.family, name, self.sizes["hidden"], self.tied)
            stored = close_axes(scaled, self.family.tensors[name]).to(self.dtype)
            if not is_finite(stored):
                self._refuse(name.format(layer=layer), part)
            yield stored

    def _refuse(self, name: str, value: torch.Tensor) -> None:
        """Say where a value comes from that is not finite."""
        for source in self.sources:
            source.require_finite()
        largest, limit = value.abs().max().item(), torch.finfo(self.dtype).max
        kind, sources = str(self.dtype).removeprefix("torch."), " and ".join(source.name for source in self.sources)
        raise ColpipeError(
            f"{sources}: tensor {name} would hold {largest:.3g}, {kind} goes to {limit:.3g}; "
            "save the larger model, or the only one, in bfloat16 or float32"
        )

    def write(self, folder: Path) -> None:
        """Write a stock Hugging Face folder; no more than one tensor, or part of one, is in memory.

        On one thread: moving bytes gains nothing from more, and where others use the processor, threads that wait for
        each other after every part are many times slower.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            write_model(self.shapes(), self._stored(), self.config, self.dtype, folder)
        finally:
            torch.set_num_threads(threads)

    def load(self):
        """A stock transformers model, its head tied where the configuration says so."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig  # seconds, spared those who only write

        settings = {
            key: value for key, value in self.config.items() if key not in ("model_type", "transformers_version")
        }
        config = AutoConfig.for_model(self.config["model_type"], **settings)
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        return kind.from_pretrained(None, config=config, state_dict=dict(self.tensors()), dtype=self.dtype).eval()
