"""What is not a number is no score: a model whose weights or logits are not finite is named, never scored."""

import torch
from transformers import PreTrainedModel

from colpipe.errors import ColpipeError


def require_finite(values: torch.Tensor, model: PreTrainedModel, what: str) -> None:
    """Refuse values that a model gave.

    Args:
        values: losses, log-likelihoods, or what else is a number only where all logits are.
        what: they are, for the message.

    Raises:
        ColpipeError: names the model, and the first of its tensors that is not finite.
    """
    if bool(torch.isfinite(values).all()):
        return
    seen = values[~torch.isfinite(values)].flatten()[0].item()
    raise ColpipeError(f"{name_of(model)}: {what}: {seen}, no number to score; {_cause(model)}")


def name_of(model: PreTrainedModel) -> str:
    """The folder that a model was loaded from, or its class."""
    return getattr(model, "name_or_path", "") or type(model).__name__


def broken_weights(model: PreTrainedModel) -> str | None:
    """The first tensor that holds something else than numbers, and how much of it; None where all are finite."""
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor.sum(dtype=torch.float32)):  # one pass, and a second one only where it may be true
            broken = int((~torch.isfinite(tensor)).sum())
            if broken:
                return f"{name} has {broken:,} of {tensor.numel():,} values that are not finite"
    return None


def _cause(model: PreTrainedModel) -> str:
    if found := broken_weights(model):
        return f"its {found}"
    return f"its weights are finite, but its logits overflow {str(model.dtype).removeprefix('torch.')}"
