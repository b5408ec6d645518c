"""Submodels of an elastic member at work: stock models of smaller shapes whose weights are slices of the member's own.

A submodel's modules are built once, without weights. Before each use they are given slices of the member's parameters,
taken by the maps that `colpipe.learngene.elastic` cuts with; gradients flow through them into the member. A slice is a view,
except where queries, keys and values share a tensor.
"""

import random
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from colpipe.config.stages import Elastic
from colpipe.hf.counting import count_calls
from colpipe.hf.logits import require_transform
from colpipe.hf.models import disable_dropout
from colpipe.learngene.elastic import ElasticMember, random_sizes
from colpipe.learngene.gather import gather, join_axes, open_axes
from colpipe.learngene.scaling import stored_again
from colpipe.learngene.weights import Weights
from colpipe.training.objectives import Projection
from colpipe.training.projection import chosen


class Submodels:
    """The smaller shapes that a member is distilled with.

    Args:
        model: the member; its parameters are sliced, not copied.
        elastic: how submodels are taken.
        settings: which shapes, and how much they count.
        seed: of the random shapes. Those of a step depend on nothing else, so a resumed job has the same ones.
        checkpointing: whether hidden states are computed again in the backward pass.
    """

    def __init__(
        self, model: PreTrainedModel, elastic: ElasticMember, settings: Elastic, seed: int, checkpointing: bool = False
    ):
        self.model, self.elastic, self.settings, self.seed = model, elastic, settings, seed
        self.member = known = Weights(model)
        self.checkpointing = checkpointing
        self.config, self.family, self.sizes, self.tied = known.config, known.family, known.sizes, known.tied
        self.names = known.stored_names
        self.smallest = {**elastic.smallest, **{axis: self.sizes[axis] for axis in ("vocabulary", "position")}}
        self._skeleton = lru_cache(maxsize=32)(self._build_skeleton)

    def at(self, step: int, steps: int) -> list[dict[str, int]]:
        """Sizes of the submodels that learn at an update, the first of which is 0, of so many."""
        settings, generator = self.settings, random.Random(f"{self.seed}-{step}")
        if step < settings.after * steps:
            return []
        shapes = [self.smallest] if settings.with_smallest else []
        joint = settings.sampling == "joint"
        for _ in range(settings.random):
            chosen = random_sizes(
                self.family, self.sizes, self.smallest, generator, joint, settings.axes, settings.align
            )
            shapes.append(chosen)
        return shapes

    def projection(self, sizes: Mapping[str, int]) -> Callable[[dict, Tensor], Projection]:
        """A submodel as a function of inputs and of places with loss, as `projection.project` is of a model."""
        skeleton, head = self._skeleton(tuple(sizes.items()))
        transform = require_transform(skeleton.model)

        def project(inputs: dict, places: Tensor) -> Projection:
            slices = self.slices(sizes)
            for name, tensor in slices.items():
                setattr(*skeleton.places[name], tensor)
            hidden = skeleton.model.base_model(**inputs, use_cache=False).last_hidden_state
            return Projection(chosen(hidden, places), slices[head], transform=transform)

        return project

    def slices(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """Stored name in the axis table, layer filled in → the submodel's tensor; gradients flow to the member's."""
        selection, gain = self.elastic.submodel(self.family, self.sizes, sizes)
        parameters, found = dict(self.model.named_parameters()), {}

        def value(name: str, layer: int | None) -> Tensor:
            tensor, origin = self.family.tensors[name], None if layer is None else selection.layers[layer]
            filled = name.format(layer=origin)
            parameter = self.member.part(filled, parameters[self.names[filled]])
            opened = self.member.rescaled(open_axes(parameter, tensor, self.sizes), tensor, origin, layer)
            taken = join_axes(gather(opened, tensor, selection.at(origin)), tensor)
            factor = gain if tensor.role == "gain" else 1.0
            return stored_again(taken, self.family, name, self.tied, self.sizes["hidden"], sizes["hidden"], factor)

        for stored, names in self.family.stored_names(self.tied):
            for layer in range(sizes["layer"]) if "{layer}" in stored else [None]:
                values = [value(name, layer) for name in names]
                found[stored.format(layer=layer)] = values[0] if len(values) == 1 else torch.cat(values)
        return found

    def _build_skeleton(self, sizes: tuple) -> tuple["Skeleton", str]:
        """Modules of one shape, and the name of its head."""
        role = "embed" if self.tied else "head"
        head = next(name for name, tensor in self.family.table(self.tied) if tensor.role == role)
        return Skeleton(self, dict(sizes)), head


class Skeleton:
    """A stock model without weights.

    Attributes:
        places: stored name in the axis table, layer filled in → (module, attribute) that uses the tensor.
    """

    def __init__(self, submodels: Submodels, sizes: Mapping[str, int]):
        layers = submodels.elastic.submodel(submodels.family, submodels.sizes, sizes)[0].layers
        model, config = submodels.model, submodels.family.resize(submodels.config, sizes, submodels.tied, layers)
        kind = config.pop("model_type")
        config.pop("transformers_version", None)
        with init_empty_weights(include_buffers=False):
            self.model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(kind, **config), attn_implementation=model.config._attn_implementation
            )
        if submodels.checkpointing:
            self.model.gradient_checkpointing_enable()
        disable_dropout(count_calls(self.model).train())
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(model.device)
        self.places = {}
        loaded = Weights(self.model).stored_names
        for stored, [name, *_] in submodels.family.stored_names(submodels.tied):
            for layer in range(sizes["layer"]) if "{layer}" in stored else [None]:
                path, _, attribute = loaded[name.format(layer=layer)].rpartition(".")
                module = self.model.get_submodule(path)
                self.places[stored.format(layer=layer)] = (module, attribute)
                del module._parameters[attribute]  # a plain attribute takes its place, and keeps its gradient
