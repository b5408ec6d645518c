"""Held-out loss on a prepared corpus."""

import math
from pathlib import Path

import torch
from transformers import PreTrainedModel

from colpipe.checkpoint import read_manifest
from colpipe.data.tokens import Blocks

TOKENS_PER_BATCH = 4096


@torch.inference_mode()
def held_out_loss(
    model: PreTrainedModel, corpus: Path, split: str = "test", length: int | None = None, tokens: int | None = None
) -> dict[str, float]:
    """Loss on a split of a corpus, cut into blocks.

    Args:
        length: of a block, tokens; None: the model's longest sequence.
        tokens: look at the first this many only, where there are more.

    Returns:
        `loss` in nats per token, `perplexity` per token, `bits_per_byte` of text.
    """
    model.eval()
    data = Blocks(corpus, split, length or model.config.max_position_embeddings)
    blocks = len(data) if tokens is None else min(len(data), max(1, tokens // data.length))
    rows = max(1, TOKENS_PER_BATCH // data.length)
    total, count = 0.0, 0
    for start in range(0, blocks, rows):
        ids = torch.stack([data[i]["input_ids"] for i in range(start, min(start + rows, blocks))]).to(model.device)
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
        total, count = total + loss.item(), count + ids[:, 1:].numel()
    loss, counts = total / count, read_manifest(corpus)["counts"][split]
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss * counts["tokens"] / counts["bytes"] / math.log(2),
    }
