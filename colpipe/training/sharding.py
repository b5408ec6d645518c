"""A model that is sharded over the processes of a training: weights, gradients, optimizer state (FSDP2, by accelerate)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, PreTrainedModel

# transformers' own; each process keeps its shard of the state
ARGUMENTS = {
    "fsdp": True,
    "fsdp_config": {"version": 2, "cpu_ram_efficient_loading": False, "state_dict_type": "SHARDED_STATE_DICT"},
}


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a model's layers are sharded."""
    return isinstance(model, FSDPModule)


def keep_head(model: torch.nn.Module) -> None:
    """Keep the head unsharded from the forward pass to the backward pass: losses use it between them."""
    for shard in (model, model.get_output_embeddings()):
        if is_sharded(shard):
            shard.set_reshard_after_forward(False, recurse=False)


@contextmanager
def unsharded(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """All weights in every process, for work at which these take different numbers of steps, as sampling."""
    shards = [module for module in model.modules() if is_sharded(module)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
    for shard in shards:
        shard.unshard()
    try:
        yield model
    finally:
        for shard in shards:
            shard.set_reshard_after_forward(True, recurse=False)
            shard.reshard()


def full_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All weights by name. Of a sharded model every process must ask; they are given to the first, on the CPU."""
    if not is_sharded(model):
        return model.state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def gathered(model: PreTrainedModel, is_main: bool) -> PreTrainedModel:
    """The full model; every process must ask, the main one is given it."""
    if not is_sharded(model):
        return model
    state = full_state(model)
    if not is_main:
        return model
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    plain.load_state_dict(state)
    return plain.eval()
