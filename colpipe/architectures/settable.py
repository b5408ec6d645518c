"""What a study may say in `architecture.config` of models made from scratch (no torch here).

The keys of each family's class in transformers that change what a model computes or how it is trained, with the class's
defaults, which give a value's type. Sizes, special tokens and what a causal language model never reads are not among them.
"""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from colpipe.architectures.families import BIASES, ROPE
from colpipe.architectures.family import Family
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
WINDOW = {"layer_types": [], "max_window_layers": 28, "sliding_window": None, "use_sliding_window": False}
SHARED = {"initializer_range": 0.02, "use_cache": True}
LLAMA_LIKE = {**SHARED, "attention_dropout": 0.0, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_parameters": ROPE}
SETTABLE: dict[str, dict[str, Any]] = {
    "gpt2": {
        **SHARED,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.1,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
    },
    "gpt_neox": {
        **SHARED,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25},
        "use_parallel_residual": True,
    },
    "llama": {**LLAMA_LIKE, **BIASES},
    "mistral": {**LLAMA_LIKE, "sliding_window": 4096},
    "qwen2": {**LLAMA_LIKE, **WINDOW},
    "qwen3": {**LLAMA_LIKE, **WINDOW, "attention_bias": False},
    "smollm3": {
        **LLAMA_LIKE,
        **BIASES,
        "layer_types": [],
        "no_rope_layers": [],
        "no_rope_layer_interval": 4,
        "rope_parameters": {**ROPE, "rope_theta": 2000000.0},
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "granite": {
        **LLAMA_LIKE,
        **BIASES,
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
    },
    "olmo2": {**LLAMA_LIKE, "attention_bias": False, "rms_norm_eps": 1e-5},
    "gemma3_text": {
        **SHARED,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": [],
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": {**ROPE, "rope_theta": 1000000.0}},
        "sliding_window": 4096,
    },
    "phi3": {
        **LLAMA_LIKE,
        "embd_pdrop": 0.0,
        "original_max_position_embeddings": 4096,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0},
        "sliding_window": None,
    },
}
# Keys of the classes that are no study's to set: bookkeeping, other tasks' heads, and what would break a training.
FIXED = (
    *("_name_or_path", "architectures", "dtype", "model_type", "transformers_version"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "pretraining_tp"),
    *("add_cross_attention", "is_decoder", "is_encoder_decoder", "chunk_size_feed_forward"),
    *("use_bidirectional_attention", "attn_logit_softcapping", "_sliding_window_pattern"),  # the last two are not read
    *("output_attentions", "output_hidden_states", "return_dict"),
    *("id2label", "label2id", "problem_type", "classifier_dropout", "summary_activation", "summary_first_dropout"),
    *("summary_proj_to_labels", "summary_type", "summary_use_proj"),
)
# Those of transformers that have no weights of their own.
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2"),
    *("relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh"),
)
ROPE_TYPES = ("default", "dynamic", "linear", "llama3", "longrope", "proportional", "yarn")
ROPE_KEYS: dict[str, Any] = {
    **{"rope_type": "default", "truncate": True, "original_max_position_embeddings": 2048},
    **{"short_factor": [], "long_factor": []},
    **dict.fromkeys(
        ("rope_theta", "partial_rotary_factor", "factor", "attention_factor", "beta_fast", "beta_slow"), 1.0
    ),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim"), 1.0),
}
CHOICES = {
    "activation_function": ACTIVATIONS,
    "hidden_act": ACTIVATIONS,
    "hidden_activation": ACTIVATIONS,
    "rope_type": ROPE_TYPES,
    "layer_types": ("full_attention", "sliding_attention"),
}
OLDER = {  # names that transformers reads beside `rope_parameters`, which goes before them
    **{"rope_theta": "rope_theta", "rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"},
    **{"rope_scaling": "rope_type and what belongs to it", "partial_rotary_factor": "partial_rotary_factor"},
}
KINDS = {
    bool: "true or false",
    int: "a whole number of 1 or more",
    float: "a finite number of 0 or more",
    str: "a name",
}
SAID = {
    **{"vocabulary": "architecture.vocabulary", "position": "architecture.positions"},
    **{"layer": "shape.layers", "head": "shape.heads", "group": "shape.kv_heads"},
}


def config_problems(family: Family, config: Mapping) -> Iterator[str]:
    """Why a study's `architecture.config` is refused, a line each: key, value, what is allowed."""
    settable = SETTABLE[family.name]
    decided = {key: SAID.get(axis, f"shape.{axis}") for axis, key in family.keys.items()}
    decided |= {old: decided[new] for old, new in family.aliases.items() if new in decided}
    decided |= {"tie_word_embeddings": "architecture.tied", "model_type": "architecture.family"}
    decided |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "tokenizer")
    for key, value in config.items():
        if key in decided:
            yield f"{key}: {value!r}: is decided by {decided[key]}; say it there"
        elif key in OLDER and "rope_parameters" in settable:
            yield f"{key}: {value!r}: would not count beside rope_parameters; give {OLDER[key]} there"
        elif key in FIXED:
            yield f"{key}: {value!r}: is not a study's to set; {family.name} takes {', '.join(sorted(settable))}"
        elif key not in settable:
            yield _unknown(key, value, family.name, settable)
        elif key == "rope_parameters" and isinstance(value, Mapping):
            yield from _rope_problems(key, value, settable[key])
        elif problem := _value_problem(key, value, settable[key]):
            yield f"{key}: {value!r}: {problem}"


def _rope_problems(where: str, value: Mapping, usual: Mapping) -> Iterator[str]:
    """Of `rope_parameters`, or of those of each kind of attention where a family has one for each."""
    kinds = {kind: each for kind, each in usual.items() if isinstance(each, Mapping)}
    known = kinds or ROPE_KEYS
    for inner, each in value.items():
        if inner not in known:
            yield f"{where}.{_unknown(inner, each, where, known)}"
        elif inner in kinds and isinstance(each, Mapping):
            yield from _rope_problems(f"{where}.{inner}", each, kinds[inner])
        elif problem := _value_problem(inner, each, known[inner]):
            yield f"{where}.{inner}: {each!r}: {problem}"


def _unknown(key: Any, value: Any, owner: str, known: Mapping) -> str:
    near = get_close_matches(str(key), known, 1)
    meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"{key}: {value!r}: {owner} has no such key; {meant}"


def _value_problem(key: str, value: Any, usual: Any) -> str | None:
    """What a key's value has to be, where it is something else."""
    if usual is None:  # a window, or a cap
        return None if value is None else _value_problem(key, value, 1.0 if key.endswith("softcapping") else 1)
    if isinstance(usual, dict):
        return "is no mapping"
    if isinstance(usual, list):
        if not isinstance(value, list) or not value:
            return "is no list"
        return next(filter(None, (_value_problem(key, each, "" if key in CHOICES else 1.0) for each in value)), None)
    kind = type(usual)
    fits = type(value) is kind or (kind is float and type(value) is int)
    if fits and kind is not bool and kind is not str:
        fits = math.isfinite(value) and value >= (kind is int)
    if not fits:
        return f"has to be {KINDS[kind]}"
    if key in CHOICES and value not in CHOICES[key]:
        near = get_close_matches(value, CHOICES[key], 1)
        return f"is none of {', '.join(CHOICES[key])}" + (f"; did you mean {near[0]}?" if near else "")
    if ("pdrop" in key or "dropout" in key) and value > 1:
        return "has to be a share between 0 and 1"
    return None


def require_parameters(found: int, planned: int) -> None:
    """Refuse a model that is not of the size that the plan counted.

    Raises:
        ColpipeError: names both.
    """
    if found != planned:
        raise ColpipeError(
            f"the model has {found:,} parameters, {planned:,} were planned from architecture and shape: see which keys of "
            "architecture.config change its weights"
        )
