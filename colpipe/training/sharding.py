"""A model that is shared out among the processes of a training: weights, gradients, momenta (FSDP2, by accelerate)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, PreTrainedModel

# transformers' own; each process keeps its share of the state
ARGUMENTS = {
    "fsdp": True,
    "fsdp_config": {"version": 2, "cpu_ram_efficient_loading": False, "state_dict_type": "SHARDED_STATE_DICT"},
}


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a model's layers are shared out."""
    return isinstance(model, FSDPModule)


def keep_head(model: torch.nn.Module) -> None:
    """Have the head whole from the forward pass to the backward pass: losses use it between them."""
    for part in (model, model.get_output_embeddings()):
        if is_sharded(part):
            part.set_reshard_after_forward(False, recurse=False)


@contextmanager
def whole(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """All weights in every process, for work at which these take different numbers of steps, as sampling."""
    parts = [module for module in model.modules() if is_sharded(module)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield model
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def full_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All weights by name. Of a sharded model every process must ask; they are given to the first, on the CPU."""
    if not is_sharded(model):
        return model.state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def gathered(model: PreTrainedModel, is_main: bool) -> PreTrainedModel:
    """A model in one piece; every process must ask, the main one is given it."""
    if not is_sharded(model):
        return model
    state = full_state(model)
    if not is_main:
        return model
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    plain.load_state_dict(state)
    return plain.eval()
