"""Gemma 3 out of a GGUF file: what transformers' conversion leaves at the defaults of one checkpoint.

It reads shapes, weights (gains are stored as 1 + w) and the tokenizer as llama.cpp does. Of the rest of `gemma3.*` it reads
the window and the global rotary base, and takes 256, six layers a pattern and unscaled positions whatever the file says.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from colpipe.errors import ColpipeError

PREFIX = "gemma3."
CONVERTED = {  # by transformers, or without effect on what the text model computes
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "rope.freq_base"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.scaling.original_context_length", "rope.scaling.finetuned"),
}
PATTERN, LOCAL_BASE = 6, 10_000.0  # what llama.cpp takes where the file does not say it
SCALED_BY_WIDTH = 62  # layers of the one model, 27B, whose queries are scaled by hidden / heads


def complete(config: PreTrainedConfig, said: Mapping[str, Any], where: str) -> None:
    """Have a converted configuration (Gemma3TextConfig) compute what llama.cpp does with the same file.

    Args:
        config: is changed.
        said: key → value of all that the file says.
        where: names the file in errors.

    Raises:
        ColpipeError: the file says something of the model that is known neither to transformers' conversion nor here.
    """
    left = {
        key.removeprefix(PREFIX): value
        for key, value in said.items()
        if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in CONVERTED
    }
    layers = config.num_hidden_layers
    by_width = layers == SCALED_BY_WIDTH
    config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if by_width else config.head_dim
    window = left.pop("attention.sliding_window", 0)
    every = left.pop("attention.sliding_window_pattern", PATTERN)
    local = (
        [not every or bool((layer + 1) % every) for layer in range(layers)] if isinstance(every, int) else list(every)
    )
    if len(local) != layers:
        raise ColpipeError(
            f"{where}: {PREFIX}attention.sliding_window_pattern has {len(local)} values for {layers} layers"
        )
    config.layer_types = ["sliding_attention" if window and each else "full_attention" for each in local]
    rope = {kind: dict(values) for kind, values in config.rope_parameters.items()}
    rope["sliding_attention"]["rope_theta"] = left.pop("rope.freq_base_swa", LOCAL_BASE)
    kind, factor = left.pop("rope.scaling.type", "none"), left.pop("rope.scaling.factor", 1.0)
    if kind not in ("none", "linear"):
        raise ColpipeError(f"{where}: {PREFIX}rope.scaling.type {kind!r}: known are none and linear")
    if kind == "linear":
        rope["full_attention"] |= {"rope_type": "linear", "factor": factor}
    config.rope_parameters = rope
    config.final_logit_softcapping = left.pop("final_logit_softcapping", None) or None
    if left:
        key, value = next(iter(left.items()))
        raise ColpipeError(f"{where}: {PREFIX}{key} {value!r}: not known here, it may change what the model computes")
