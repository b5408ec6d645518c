"""FLOPs of a model by architecture and shape, and what memory it takes (no torch here).

FLOPs are those of the matrix products, two for each multiplication and addition: blocks, attention scores, output head.
A backward pass is two forward passes. Embeddings are looked up, and norms, activations and the optimiser are below one in a
hundred: none of them is counted. Pairs that a causal mask hides count as well, as torch's own counter has it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from colpipe.architectures.family import Family

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
TRAINING = 3  # forward passes that a training pass costs
FUSED_HEAD = 4  # fine-tuning's output head computes its logits a second time in the backward pass
REAL = 4  # bytes of a float32
BYTES = {"float32": REAL, "bfloat16": 2, "int8": 1}  # of a weight
# What glibc's heap takes of main memory for what is in use: where it gives nothing back, as the workflow has it
# (`snakefile.run_stages_here`), freed room does not fit what comes next. Measured: 1.12 to 1.24, and 1.66 where blocks are
# computed again, so that the long-lived gradients lie between their activations. Where learning and sampling take turns,
# neither finds room in what the other left: 1.24 to 1.54, by chance.
HEAP, HEAP_CHECKPOINTED, HEAP_SAMPLED = 1.17, 1.7, 1.4
# For keys and values of answers, which grow by a token at each step and are laid out anew: 1.5 to 2.3, more after more
# batches.
GROWN = 2.0


@dataclass(frozen=True)
class Forward:
    """FLOPs of a model's forward pass."""

    blocks: float
    """of all layers, a token"""
    scores: float
    """of attention in all layers, a pair of a token and a position that it looks at"""
    head: float
    """a token whose logits are asked for"""
    last: float = 0
    """of `blocks`, each layer's last product, whose result no backward pass needs: checkpointing does not repeat it"""

    def layers(self, rows: float, length: float, past: float = 0) -> float:
        """Rows of so many tokens, behind `past` others that are in a cache; no logits."""
        return rows * length * (self.blocks + self.scores * (past + length))

    def trained(self, rows: float, length: float, checkpointed: bool = False) -> float:
        """Forward and backward pass of the layers."""
        once = self.layers(rows, length)
        return TRAINING * once + checkpointed * (once - rows * length * self.last)

    def generation(self, rows: float, prompt: float, new: float) -> float:
        """Answers with a cache: the prompt once, then one token at a time; the last is not read again."""
        more = max(0, new - 1)
        looked_at = more * prompt + more * new / 2
        return self.layers(rows, prompt) + rows * (more * self.blocks + self.scores * looked_at + new * self.head)


def forward(family: Family, sizes: Mapping[str, int]) -> Forward:
    """FLOPs of a model of these axis sizes."""
    matrices = sum(
        math.prod(sizes[axis] for axis in tensor.names)
        for tensor in family.tensors.values()
        if tensor.role in ("read", "write") and len(tensor.names) > 1
    )
    return Forward(
        blocks=2 * sizes["layer"] * matrices,
        scores=4 * sizes["layer"] * sizes["head"] * sizes["head_dim"],
        head=2 * sizes["hidden"] * sizes["vocabulary"],
        last=0 if family.post_gains else 2 * sizes["layer"] * sizes["hidden"] * sizes["ffn"],  # a norm behind needs it
    )


def unknown_forward(parameters: float) -> Forward:
    """That of a model of which the size is known alone (Kaplan et al. 2020): attention scores are left out."""
    return Forward(blocks=2 * parameters, scores=0, head=0)


def saved_values(family: Family, sizes: Mapping[str, int], padded: bool = False) -> int:
    """Values that a block keeps for its backward pass, a token, with PyTorch's fused attention.

    Every product keeps its input, a norm its own, RMSNorm also what it scales; attention keeps queries, keys, values and its
    result, a gated feed-forward layer four widths instead of two.

    Args:
        padded: rows have a mask: grouped keys and values are repeated for each of their queries then.
    """
    queries, keys = sizes["head"] * sizes["head_dim"], sizes["group"] * sizes["head_dim"]
    names = [name for name in family.tensors if "{layer}" in name]
    fused = any("qkv" in family.tensors[name].names for name in names)
    if fused:  # one tensor, and with rotary embeddings queries and keys once more
        attention = (6 if "rope_parameters" in family.defaults else 4) * queries
    else:
        normed = any(name.endswith("q_norm.weight") for name in names)
        repeated = padded and keys < queries
        attention = 2 * (1 + normed) * queries + 2 * (normed * keys + (queries if repeated else keys))
        if family.fused:  # values are a part of all three, which stay with them; the result is laid out anew
            attention += queries + (0 if repeated else queries + keys)
    gated = sum("ffn" in family.tensors[name].names and "hidden" in family.tensors[name].names for name in names) > 2
    norms = 2 * (3 if family.norm == "rms" else 2) * sizes["hidden"]
    if len(family.post_gains) == 2 < sum(family.tensors[name].role == "gain" for name in names):  # beside those before
        norms += 4 * sizes["hidden"]
    return norms + attention + (4 if gated else 2) * sizes["ffn"]


def training_memory(
    family: Family,
    sizes: Mapping[str, int],
    tied: bool,
    rows: float,
    length: float,
    logits: float,
    *,
    chunk: int,
    again: bool = False,
    checkpointed: bool = False,
    taught: bool = False,
    padded: bool = False,
) -> float:
    """Bytes in use at the peak of a training in float32 with AdamW, beside what the process holds without a model.

    The peak is the end of a forward pass, when all activations are there and no gradients, or the end of a backward pass.

    Args:
        rows, length: of a micro-batch.
        logits: positions of the micro-batch that have loss.
        chunk: logits that are projected at a time.
        again: gradients are there when a forward pass begins: of the micro-batch before, or of an elastic member's part.
        checkpointed: a block keeps its input only.
        taught: a teacher's logits are there beside the model's.
        padded: rows have a mask.
    """
    weights = REAL * family.parameters(sizes, tied)
    head = REAL * sizes["vocabulary"] * sizes["hidden"]
    block = REAL * rows * length * saved_values(family, sizes, padded)
    width = REAL * rows * length * sizes["hidden"]
    blocks = sizes["layer"] * width + block if checkpointed else sizes["layer"] * block
    outside = (3 if family.norm == "rms" else 2) * width + 2 * REAL * logits * sizes["hidden"]
    chunk_bytes = REAL * min(chunk, logits * sizes["vocabulary"])
    # The head's gradient is made in the forward pass. A chunk of logits is there twice: once as the product keeps it.
    forward_end = (3 + again) * weights + blocks + outside + head + (2 + taught) * chunk_bytes
    backward_end = 4 * weights + tied * head + block
    return max(forward_end, backward_end)


def inference_memory(weights: float, vocabulary: int, logits: float) -> float:
    """Bytes in use by a model that is only read: its weights, and the logits of a batch with their probabilities."""
    return weights + 3 * REAL * logits * vocabulary


def cache_memory(sizes: Mapping[str, int], rows: float, length: float) -> float:
    """Bytes of the keys and values that are kept while rows of so many tokens are generated."""
    return 2 * REAL * sizes["layer"] * sizes["group"] * sizes["head_dim"] * rows * length
