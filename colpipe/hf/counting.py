"""Models count what goes through them: tokens, and FLOPs by the formulas of `colpipe.architectures.flops`."""

import torch
from transformers import PreTrainedModel

from colpipe.architectures.families import FAMILIES
from colpipe.architectures.flops import TRAINING, Forward, forward, unknown_forward
from colpipe.jobs.usage import count

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def count_calls(model: PreTrainedModel) -> PreTrainedModel:
    """Have a model count its calls, and those of its output head.

    A call with gradients counts as a training pass. Padding counts: it is computed. Where the head's weight is used without
    the head being called, `count_logits` is for the caller.
    """
    cost = forward_of(model)

    def at_layers(module, positional, named):
        ids = next(
            value
            for value in (*positional[:1], named.get("input_ids"), named.get("inputs_embeds"))
            if value is not None
        )
        cache = named.get("past_key_values")
        rows, length = ids.shape[:2]
        if torch.is_grad_enabled():
            flops = cost.trained(rows, length, model.training and model.is_activation_checkpointing)
        else:
            flops = cost.layers(rows, length, cache.get_seq_length() if cache is not None else 0)
        count(flops, rows * length)

    def at_head(module, positional):
        vocabulary, hidden = module.weight.shape
        count_logits(positional[0].shape[:-1].numel(), vocabulary, hidden, TRAINING if torch.is_grad_enabled() else 1)

    # Not every family calls its base model, but all look up their tokens.
    known = model.config.model_type in FAMILIES
    (model.base_model if known else model.get_input_embeddings()).register_forward_pre_hook(at_layers, with_kwargs=True)
    model.get_output_embeddings().register_forward_pre_hook(at_head)
    return model


def forward_of(model: PreTrainedModel) -> Forward:
    """FLOPs of a loaded model's forward pass; by its parameters alone where its family has no table."""
    config = model.config.to_dict()
    if family := FAMILIES.get(config["model_type"]):
        return forward(family, family.sizes(config))
    embedding = model.get_input_embeddings().weight
    return unknown_forward(sum(value.numel() for value in model.parameters() if value is not embedding))


def count_logits(positions: int, vocabulary: int, hidden: int, passes: int = 1) -> None:
    """Logits of so many positions, by a head (vocabulary, hidden)."""
    count(passes * 2 * positions * vocabulary * hidden)
