"""What a stock model makes of its output head's values: some families divide them, some cap them.

Losses and scores that multiply hidden states by the head's weight themselves, where there is something to lose or to score,
do here what the model's own forward does then.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from colpipe.errors import ColpipeError

SCALING, CAP = "logits_scaling", "final_logit_softcapping"
# Model types whose logits are the head of the base model's last hidden states, and the keys of config.json that change them
# after it. The meaning of a key is the type's own: HyperCLOVA X multiplies by the `logits_scaling` that Granite divides by.
HEADS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"), ()),
    "granite": (SCALING,),
    **dict.fromkeys(("gemma2", "gemma3_text"), (CAP,)),
}


class LogitTransform(NamedTuple):
    """From a head's values to logits: divided first, then capped."""

    divisor: float = 1.0
    """Granite's `logits_scaling`"""
    cap: float | None = None
    """Gemma's `final_logit_softcapping`: cap · tanh(value / cap)"""

    def apply(self, values: Tensor) -> Tensor:
        """Logits, in place of a head's values and in their precision; steps and rounding are those of the stock models."""
        if self.divisor != 1:
            values.div_(self.divisor)
        return values if self.cap is None else values.div_(self.cap).tanh_().mul_(self.cap)

    def derivative(self, logits: Tensor) -> Tensor | float:
        """Of logits by the head's values, at least in float32: of the logits' shape where they are capped, else a number."""
        if self.cap is None:
            return 1 / self.divisor
        part = logits.to(torch.promote_types(logits.dtype, torch.float32)).div(self.cap)
        # cap · tanh in half precision may be rounded to more than cap
        return part.square_().neg_().add_(1).clamp_(min=0).div_(self.divisor)


PLAIN = LogitTransform()


def transform_of(model: PreTrainedModel) -> LogitTransform | None:
    """How a model's logits are made of its head's values; None where that is not known of its type.

    Raises:
        ColpipeError: a divisor or cap is not above 0.
    """
    config = model.config
    if config.model_type not in HEADS:
        return None
    found: dict[str, Any] = {key: getattr(config, key, None) for key in HEADS[config.model_type]}
    for key, value in found.items():
        if value is not None and not value > 0:
            raise ColpipeError(f"{model.name_or_path or config.model_type}: {key} is {value!r}; it has to be above 0")
    return LogitTransform(found.get(SCALING) or 1.0, found.get(CAP)) if any(found.values()) else PLAIN


def require_transform(model: PreTrainedModel) -> LogitTransform:
    """`transform_of` a model whose logits have to be made of hidden states.

    Raises:
        ColpipeError: it is not known how.
    """
    if (transform := transform_of(model)) is None:
        raise ColpipeError(
            f"{model.name_or_path or 'a model'}: model_type {model.config.model_type!r}: how its logits are made of hidden "
            f"states is not known, so that it cannot be a teacher or a student of these losses; known are {', '.join(HEADS)}"
        )
    return transform
