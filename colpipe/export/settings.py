"""A model's configuration as llama.cpp's keys (no weights here)."""

import math
from collections.abc import Mapping
from typing import Any

from gguf import GGUFWriter, RopeScalingType

from colpipe.architectures.family import Family
from colpipe.architectures.layers import WITHOUT_ROPE, rotary_in_llama_cpp, window_period
from colpipe.errors import ColpipeError

TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # three names of the function that llama.cpp has
SILU = {"hidden_act": ("silu", "swish")}
NO_BIASES = {"attention_bias": (False,), "mlp_bias": (False,)}
# What llama.cpp computes in any case; a model that wants something else would answer differently there.
COMPUTED: dict[str, dict[str, tuple]] = {
    "llama": SILU,
    "mistral": SILU,
    "qwen2": SILU,
    "qwen3": SILU,
    "smollm3": {**SILU, **NO_BIASES},
    "granite": SILU,
    "olmo2": {**SILU, **NO_BIASES},
    "gemma3_text": {
        "hidden_activation": (*TANH, "gelu"),
        "final_logit_softcapping": (None,),
        "use_bidirectional_attention": (False, None),
        **NO_BIASES,
    },
    "phi3": SILU,
    "gpt2": {
        "activation_function": (*TANH, "gelu"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "gpt_neox": {"hidden_act": (*TANH, "gelu")},
}
ROPES = {
    "default": "gpt_neox llama mistral qwen2 qwen3 smollm3 granite olmo2 gemma3_text phi3",
    "linear": "gpt_neox llama mistral qwen2 qwen3 smollm3 granite olmo2 gemma3_text",
    "llama3": "llama mistral",
    "longrope": "phi3",
}
PARTIAL = ("gpt_neox", "phi3")  # families that may turn a part of a head
# Of a Gemma 3: the number of layers of which the last attends to everything, and the rope_theta of the others, that
# versions of llama.cpp have which do not read them from a file.
USUAL_PERIOD, USUAL_LOCAL = 6, 10000.0
MULTIPLIERS = {  # of Granite: key of config.json → method that writes llama.cpp's
    "attention_multiplier": "add_attention_scale",
    "embedding_multiplier": "add_embedding_scale",
    "residual_multiplier": "add_residual_scale",
    "logits_scaling": "add_logit_scale",
}


def require_exported(model_type: object, where: str) -> None:
    """Refuse a family that is not written as GGUF files here.

    Raises:
        ColpipeError: names it and those that are.
    """
    if model_type not in COMPUTED:
        raise ColpipeError(
            f"{where}: model_type {model_type!r}: exported are {', '.join(COMPUTED)}; llama.cpp's convert_hf_to_gguf.py may "
            "take others"
        )


def require_known(family: Family, config: Mapping[str, Any], where: str) -> list[str]:
    """See that llama.cpp computes what a `config.json` mapping, complete, asks for.

    Returns:
        What it computes only nearly, or not in every version, a phrase each.

    Raises:
        ColpipeError: names the key, its value and what llama.cpp has.
    """
    require_exported(family.name, where)
    for key, known in COMPUTED[family.name].items():
        if config.get(key, known[0]) not in known:
            raise ColpipeError(
                f"{where}: {key} {config[key]!r}: of {family.name}, llama.cpp computes {known[0]!r} only"
            )
    _require_family(family, config, where)
    notes = _require_windows(family, config, where)
    if family.name != "gpt2":
        notes += _require_rope(family, config, where)
    act = next(key for key in COMPUTED[family.name] if "act" in key)
    if config.get(act) == "gelu":
        notes.append(f"{act} gelu: llama.cpp has the tanh approximation, within 0.0005 of it")
    return notes


def _require_family(family: Family, config: Mapping[str, Any], where: str) -> None:
    """What llama.cpp takes as given in one family."""
    sizes = family.sizes(config)
    if family.name == "olmo2" and sizes["head"] * sizes["head_dim"] != sizes["hidden"]:
        raise ColpipeError(
            f"{where}: head_dim {sizes['head_dim']}: of olmo2, llama.cpp takes hidden_size / num_attention_heads "
            f"({sizes['hidden']} / {sizes['head']}) only"
        )
    turned = config.get("no_rope_layers")
    if family.name == "smollm3" and turned != rotary_in_llama_cpp(sizes["layer"]):
        raise ColpipeError(
            f"{where}: no_rope_layers {turned}: of smollm3, llama.cpp leaves rotary positions out of every "
            f"{WITHOUT_ROPE}th layer (0 there, 1 elsewhere) and of no other"
        )
    for key in MULTIPLIERS if family.name == "granite" else ():
        if not config[key]:
            raise ColpipeError(f"{where}: {key} {config[key]}: llama.cpp takes 0 for a multiplier that is not given")


def _require_windows(family: Family, config: Mapping[str, Any], where: str) -> list[str]:
    """Sliding windows, which llama.cpp has in Gemma 3, in all layers but every so many."""
    kinds, window = config.get("layer_types") or (), config.get("sliding_window") or 0
    if family.name == "gemma3_text":
        period, local = window_period(kinds), config["rope_parameters"]["sliding_attention"]["rope_theta"]
        if period == 1 or not period:
            full = ", ".join(str(layer) for layer, kind in enumerate(kinds) if kind == "full_attention")
            raise ColpipeError(
                f"{where}: layer_types: full attention in layers {full} of 0 to {len(kinds) - 1}: of gemma3_text, llama.cpp "
                f"has it in the last of every {USUAL_PERIOD} layers, or of every so many from 2, and in no other"
            )
        if (period == USUAL_PERIOD or len(kinds) < min(period, USUAL_PERIOD)) and local == USUAL_LOCAL:
            return []
        return [
            f"an older llama.cpp has full attention in every {USUAL_PERIOD}th layer and a local rope_theta of "
            f"{USUAL_LOCAL:g}, whatever the file says"
        ]
    slides = "sliding_attention" in kinds if kinds else family.name in ("mistral", "phi3") and window > 0
    if slides and window < config["max_position_embeddings"]:
        raise ColpipeError(f"{where}: sliding_window {window}: llama.cpp attends to everything in {family.name}")
    return []


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rope_parameters`; of a family that has them for each kind of attention, those of full attention."""
    return config["rope_parameters"].get("full_attention") or config["rope_parameters"]


def _require_rope(family: Family, config: Mapping[str, Any], where: str) -> list[str]:
    rope, local = rope_of(config), config["rope_parameters"].get("sliding_attention") or {}
    kind, turned = rope.get("rope_type", "default"), rotary_width(family, config)
    if family.name not in ROPES.get(kind, "").split():
        known = ", ".join(name for name, families in ROPES.items() if family.name in families.split())
        raise ColpipeError(f"{where}: rope_type {kind!r}: those of {family.name} that are exported: {known}")
    if (other := local.get("rope_type", "default")) != "default":
        raise ColpipeError(f"{where}: sliding_attention: rope_type {other!r}: llama.cpp has default only there")
    if turned % 2:
        raise ColpipeError(
            f"{where}: rotary positions turn {turned} channels of a head; llama.cpp takes an even number"
        )
    if kind == "longrope":
        limit = rope["original_max_position_embeddings"]
        return [
            f"LongRoPE: with a context of more than {limit} tokens, llama.cpp takes long_factor for short texts too"
        ]
    return []


def rotary_width(family: Family, config: Mapping[str, Any]) -> int:
    """Channels of a head that rotary positions turn."""
    share = rope_of(config).get("partial_rotary_factor", 1.0) if family.name in PARTIAL else 1
    return int(family.sizes(config)["head_dim"] * share)


def query_factor(family: Family, config: Mapping[str, Any]) -> float:
    """What queries have to be multiplied by so that llama.cpp, which divides them by the root of another number, has the
    scores of a Gemma 3: by that of hidden_size / num_attention_heads where there are 62 layers, by that of head_dim else."""
    sizes = family.sizes(config)
    divided = sizes["hidden"] // sizes["head"] if sizes["layer"] == 62 else sizes["head_dim"]
    return (divided / config["query_pre_attn_scalar"]) ** 0.5


def add_settings(writer: GGUFWriter, family: Family, config: Mapping[str, Any]) -> None:
    """Write a `config.json` mapping, complete, into a GGUF file."""
    sizes = family.sizes(config)
    writer.add_context_length(sizes["position"])
    writer.add_embedding_length(sizes["hidden"])
    writer.add_block_count(sizes["layer"])
    writer.add_feed_forward_length(sizes["ffn"])
    writer.add_head_count(sizes["head"])
    writer.add_head_count_kv(sizes["group"])
    writer.add_key_length(sizes["head_dim"])
    writer.add_value_length(sizes["head_dim"])
    writer.add_vocab_size(sizes["vocabulary"])
    _, epsilon = family.epsilon(config)
    (writer.add_layer_norm_rms_eps if family.norm == "rms" else writer.add_layer_norm_eps)(epsilon)
    if family.name == "gpt_neox":
        writer.add_parallel_residual(config["use_parallel_residual"])
    for key, add in MULTIPLIERS.items() if family.name == "granite" else ():
        getattr(writer, add)(config[key])
    if family.name == "gemma3_text":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern(window_period(config["layer_types"]))
        writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])
    if family.name == "phi3":
        writer.add_sliding_window(0)  # older versions of llama.cpp take one of their own where it is not said
    if family.name != "gpt2":
        _add_rope(writer, family, config)


def _add_rope(writer: GGUFWriter, family: Family, config: Mapping[str, Any]) -> None:
    rope = rope_of(config)
    writer.add_rope_dimension_count(rotary_width(family, config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(long_attention_factor(config))


def long_attention_factor(config: Mapping[str, Any]) -> float:
    """What LongRoPE multiplies turned queries and keys by, as transformers does."""
    rope = config["rope_parameters"]
    original = rope["original_max_position_embeddings"]
    longer = rope.get("factor") or config["max_position_embeddings"] / original
    usual = math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
    return usual if rope.get("attention_factor") is None else rope["attention_factor"]
