"""Held-out loss on a prepared corpus."""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from colpipe.config.constants import PERPLEXITY_TOKENS
from colpipe.data.tokens import Blocks
from colpipe.hf.finite import require_finite
from colpipe.jobs.artifacts import read_manifest

LARGEST = math.log(sys.float_info.max)  # loss whose perplexity a float still holds, nats


def held_out_loss(
    model: PreTrainedModel, corpus: Path, split: str = "test", length: int | None = None, tokens: int | None = None
) -> dict[str, float]:
    """Loss on a split of a corpus, cut into blocks.

    Args:
        length: of a block, tokens; None: the model's longest sequence, or all of a split that is shorter.
        tokens: look at this many only, where there are more, spread evenly over the split.

    Returns:
        `loss` in nats per token, `perplexity` per token, `bits_per_byte` of text.

    Raises:
        ColpipeError: the loss is not finite.
    """
    return in_units(float(block_losses(model, corpus, split, length, tokens).mean()), corpus, split)


def in_units(loss: float, corpus: Path, split: str = "test") -> dict[str, float]:
    """A loss in nats per token as `held_out_loss` gives it; a perplexity beyond what a float holds is infinite."""
    counts = read_manifest(corpus)["counts"][split]
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < LARGEST else math.inf,
        "bits_per_byte": loss * counts["tokens"] / counts["bytes"] / math.log(2),
    }


@torch.inference_mode()
def block_losses(
    model: PreTrainedModel, corpus: Path, split: str = "test", length: int | None = None, tokens: int | None = None
) -> np.ndarray:
    """Mean loss of each block, nats per token; for the arguments see `held_out_loss`.

    Raises:
        ColpipeError: a loss is not finite.
    """
    model.eval()
    there = read_manifest(corpus)["counts"][split]["tokens"]
    length = length or min(model.config.max_position_embeddings, there)
    data = Blocks(corpus, split, length, None if tokens is None else min(there, max(tokens, length)))
    blocks = len(data)
    rows = max(1, PERPLEXITY_TOKENS // data.length)
    losses = []
    for start in range(0, blocks, rows):
        ids = torch.stack([data[i]["input_ids"] for i in range(start, min(start + rows, blocks))]).to(model.device)
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none").mean(1).cpu())
        require_finite(losses[-1], model, f"its loss on {corpus} ({split})")
    return torch.cat(losses).double().numpy()
