"""Held-out loss on a prepared corpus."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from colpipe.data.tokens import Blocks

TOKENS_PER_BATCH = 4096


@torch.inference_mode()
def held_out_loss(model: PreTrainedModel, corpus: Path, bytes_per_token: float) -> dict[str, float]:
    """Loss on a corpus's test split, cut into blocks of the model's longest sequence.

    Returns:
        `loss` in nats per token, `perplexity` per token, `bits_per_byte` of text.
    """
    model.eval()
    data = Blocks(corpus, "test", model.config.max_position_embeddings)
    rows = max(1, TOKENS_PER_BATCH // data.length)
    total, count = 0.0, 0
    for start in range(0, len(data), rows):
        ids = torch.stack([data[i]["input_ids"] for i in range(start, min(start + rows, len(data)))]).to(model.device)
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
        total, count = total + loss.item(), count + ids[:, 1:].numel()
    loss = total / count
    return {
        "loss": loss,
        "perplexity": float(torch.tensor(loss).exp()),
        "bits_per_byte": loss / bytes_per_token / float(torch.log(torch.tensor(2.0))),
    }
