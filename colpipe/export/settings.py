"""A model's configuration as llama.cpp's keys (no weights here)."""

from collections.abc import Mapping
from typing import Any

from gguf import GGUFWriter, RopeScalingType

from colpipe.architectures.family import Family
from colpipe.errors import ColpipeError

TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # three names of the function that llama.cpp has
SILU = {"hidden_act": ("silu", "swish")}
# What llama.cpp computes in any case; a model that wants something else would answer differently there.
COMPUTED: dict[str, dict[str, tuple]] = {
    "llama": SILU,
    "qwen2": SILU,
    "qwen3": SILU,
    "gpt2": {
        "activation_function": (*TANH, "gelu"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "gpt_neox": {"hidden_act": (*TANH, "gelu")},
}
ROPES = {"default": "gpt_neox llama qwen2 qwen3", "linear": "gpt_neox llama qwen2 qwen3", "llama3": "llama"}


def require_known(family: Family, config: Mapping[str, Any], where: str) -> list[str]:
    """See that llama.cpp computes what a `config.json` mapping, complete, asks for.

    Returns:
        What it computes only nearly, a phrase each.

    Raises:
        ColpipeError: names the key, its value and what llama.cpp has.
    """
    if family.name not in COMPUTED:
        raise ColpipeError(f"{where}: model_type {family.name!r}: exported are {', '.join(COMPUTED)}")
    for key, known in COMPUTED[family.name].items():
        if config.get(key, known[0]) not in known:
            raise ColpipeError(
                f"{where}: {key} {config[key]!r}: of a {family.name}, llama.cpp computes {known[0]!r} only"
            )
    window = config.get("sliding_window") or 0
    if "sliding_attention" in (config.get("layer_types") or ()) and window < config["max_position_embeddings"]:
        raise ColpipeError(f"{where}: sliding_window {window}: llama.cpp attends to everything in a {family.name}")
    if family.name != "gpt2":
        _require_rope(family, config, where)
    act = next(key for key in COMPUTED[family.name] if "act" in key)
    return (
        [f"{act} gelu: llama.cpp has the tanh approximation, within 0.0005 of it"] if config.get(act) == "gelu" else []
    )


def _require_rope(family: Family, config: Mapping[str, Any], where: str) -> None:
    rope = config["rope_parameters"]
    kind, turned = rope.get("rope_type", "default"), rotary_width(family, config)
    if family.name not in ROPES.get(kind, "").split():
        known = ", ".join(name for name, families in ROPES.items() if family.name in families.split())
        raise ColpipeError(f"{where}: rope_type {kind!r}: those of a {family.name} that are exported: {known}")
    if turned % 2:
        raise ColpipeError(
            f"{where}: rotary positions turn {turned} channels of a head; llama.cpp takes an even number"
        )


def rotary_width(family: Family, config: Mapping[str, Any]) -> int:
    """Channels of a head that rotary positions turn."""
    share = config["rope_parameters"].get("partial_rotary_factor", 1.0) if family.name == "gpt_neox" else 1
    return int(family.sizes(config)["head_dim"] * share)


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
    if family.name != "gpt2":
        rope = config["rope_parameters"]
        writer.add_rope_dimension_count(rotary_width(family, config))
        writer.add_rope_freq_base(rope["rope_theta"])
        if rope.get("rope_type") == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
