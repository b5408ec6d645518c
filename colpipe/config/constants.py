"""Names and numbers that several rooms share, in particular what stages do and what their estimates count (no torch here).

They are no settings: a study cannot change them. Changing one reruns the stages that use it.
"""

from typing import NamedTuple

# Names of places.
SCRATCH = "scratch"  # stands where an ancestor's name would: random DesNets inherit from nobody
ORIGIN = "origin"  # stands for the ancestor, or its bridge, among the models and teachers of its chain

# Training and distillation.
VALIDATION_ITEMS = 128  # blocks or rows of each data set, scored at each evaluation during training
SAMPLED_OBJECTIVES = ("minillm", "on_policy")  # on completions that are sampled while the student learns
COMPLETION_OBJECTIVES = ("seqkd", *SAMPLED_OBJECTIVES)  # they answer prompts
CACHE_ROWS = 8  # rows of a forward pass for cached teacher log-probabilities, where runtime.micro_batch says nothing


class LogitsChunk(NamedTuple):
    """How many logits an objective holds; the loss does not depend on it, but for rounding."""

    projected: int
    """at a time, of each model"""
    together: int
    """looked at together, in float32: a part of those"""


def logits_chunk(device: str) -> LogitsChunk:
    """What suits a kind of device (`cpu`, `cuda`, `npu`): constants, so that free memory does not change a result.

    On a CPU, both were measured to be the fastest: a part fits its cache. An accelerator's are reasoned, and no accelerator
    has measured them; `make gpu-check` does. Each chunk reads and writes the gradient of the whole head (151,936 × 1,024 of
    Qwen3-0.6B in float32: 1.2 GB), as much as is read and written for the logits of 2**25; twice as many hide it. In
    bfloat16, both models' then take 0.3 GB, and what is computed of a part at most 0.5 GB.
    """
    return LogitsChunk(2**23, 2**19) if device == "cpu" else LogitsChunk(2**26, 2**24)


# Scores.
PERPLEXITY_TOKENS = 4096  # of a batch for held-out loss
GENERATION_ROWS = 64  # prompts of a batch whose answers are scored
CONTINUED_TEMPERATURE = 0.8  # of the continuation that is sampled
LIKELIHOOD_ROWS = 32  # (context, choice) pairs of a batch

# Assembly and order.
SEARCH_TOKENS = 8192  # of the validation split, for each candidate of `alpha: search`
SEARCH_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SEARCH_COMPENSATIONS = (0.0, 0.5, 1.0)
ORDER_ROWS = 8  # blocks of a forward pass of the importance measurement
ORDER_CHECKED = 4096  # tokens, the same before and after: enough to tell whether the function is
