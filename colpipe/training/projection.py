"""What a model says where there is loss: its last hidden states and its output head."""

import torch

from colpipe.data.tokens import IGNORE
from colpipe.hf.logits import require_transform
from colpipe.training import sharding
from colpipe.training.objectives import Projection


def loss_places(labels: torch.Tensor) -> torch.Tensor:
    """Where a batch has loss: places (N,) in its rows end to end (B · T) whose next label is not ignored.

    Their number is not known before they are looked at, so that an accelerator is waited for here: once a batch, where
    choosing by a mask would wait each time.

    Args:
        labels: (B, T).
    """
    predicts = torch.zeros_like(labels, dtype=torch.bool)
    predicts[:, :-1] = labels[:, 1:] != IGNORE
    return predicts.flatten().nonzero()[:, 0]


def all_places(ids: torch.Tensor) -> torch.Tensor:
    """Those of a batch (B, T) that has loss everywhere: all but the last of each row, (B · (T − 1),)."""
    return torch.arange(ids.numel(), device=ids.device).view(ids.shape)[:, :-1].flatten()


def chosen(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What stands at places (N,) of a batch (B, T, …): (N, …)."""
    return values.flatten(0, 1).index_select(0, places)


def project(model: torch.nn.Module, inputs: dict, places: torch.Tensor) -> Projection:
    """Last hidden states of a model at places (N,) of its batch (see `loss_places`), and its output head.

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
    return Projection(chosen(hidden, places), head.weight, getattr(head, "bias", None), require_transform(plain))
