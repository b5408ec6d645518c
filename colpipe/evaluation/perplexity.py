"""Held-out loss on a prepared corpus."""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from colpipe.config.constants import PERPLEXITY_TOKENS
from colpipe.data.tokens import Blocks, begin_of
from colpipe.hf.counting import count_logits
from colpipe.hf.finite import require_finite
from colpipe.hf.logits import transform_of
from colpipe.jobs.artifacts import read_manifest

LARGEST = math.log(sys.float_info.max)  # loss whose perplexity a float still holds, nats


def held_out_loss(
    model: PreTrainedModel, corpus: Path, split: str = "test", length: int | None = None, tokens: int | None = None
) -> dict[str, float]:
    """Loss on a split of a corpus, cut into blocks; of what is behind a block's first token, which may be the begin token.

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
    there = read_manifest(corpus)["counts"][split]["tokens"]
    length = length or min(model.config.max_position_embeddings, whole_block(corpus, split))
    wanted = None if tokens is None or max(tokens, length) >= there else max(tokens, length)
    data = Blocks(corpus, split, length, wanted)
    return losses_of(model, data, data.length, f"{corpus} ({split})")


def whole_block(corpus: Path, split: str) -> int:
    """Length of the block that holds all of a split, its begin token with it where the corpus has one; tokens."""
    return read_manifest(corpus)["counts"][split]["tokens"] + (begin_of(corpus) is not None)


@torch.inference_mode()
def losses_of(model: PreTrainedModel, blocks: Dataset, length: int, where: str) -> np.ndarray:
    """Mean loss of each of some blocks of one length, nats per token.

    Args:
        blocks: items with `input_ids` (length,).
        where: they are from, for the message.

    Raises:
        ColpipeError: a loss is not finite.
    """
    model.eval()
    count, rows = len(blocks), max(1, PERPLEXITY_TOKENS // length)
    losses = []
    for start in range(0, count, rows):
        ids = torch.stack([blocks[i]["input_ids"] for i in range(start, min(start + rows, count))]).to(model.device)
        losses.append(token_losses(model, ids).mean(1).cpu())
        require_finite(losses[-1], model, f"its loss on {where}")
    return torch.cat(losses).double().numpy()


def token_losses(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Loss of each token but the first, (B, T − 1).

    A row's logits are made and used before the next one's, so that they stay in the processor's cache, with the vocabulary
    first, which is how the cross-entropy goes through them.
    """
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if (transform := transform_of(model)) is None:
        logits = model(**given).logits[:, :-1].float()
        return cross_entropy(logits.mT, ids[:, 1:], reduction="none")
    head, hidden = model.get_output_embeddings().weight, model.base_model(**given).last_hidden_state
    count_logits(ids.numel(), head.shape[0], head.shape[1])
    losses = []
    for row, own in zip(hidden, ids, strict=True):
        logits = transform.apply((head @ row.T)[None, :, :-1]).float()
        losses.append(cross_entropy(logits, own[None, 1:], reduction="none"))
    return torch.cat(losses)
