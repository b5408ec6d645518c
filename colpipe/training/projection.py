"""What a model says where there is loss: its last hidden states and its output head."""

import torch

from colpipe.hf.logits import require_transform
from colpipe.training import sharding
from colpipe.training.objectives import Projection


def project(model: torch.nn.Module, inputs: dict, predicts: torch.Tensor) -> Projection:
    """Last hidden states of a model where `predicts` (B, T − 1) says, and its output head.

    A model that is wrapped, to average its gradients over processes, must be called as a whole for that to happen; of
    the logits that it then computes as well, one position is the least that can be asked for.

    Raises:
        ColpipeError: of its type it is not known how logits are made of hidden states.
    """
    plain = getattr(model, "module", model)
    if sharding.is_sharded(model):
        sharding.keep_head(model)
    if plain is model and not sharding.is_sharded(model):
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    else:
        hidden = model(**inputs, use_cache=False, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
    head = plain.get_output_embeddings()
    return Projection(hidden[:, :-1][predicts], head.weight, getattr(head, "bias", None), require_transform(plain))
