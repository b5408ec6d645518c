"""Model families: a table for each (`family.py` is their language; no torch here)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from colpipe.architectures.family import Family, TensorSpec
from colpipe.errors import ColpipeError

GPT2 = Family(
    name="gpt2",
    keys={
        "vocabulary": "vocab_size",
        "position": "n_positions",
        "layer": "n_layer",
        "hidden": "n_embd",
        "head": "n_head",
        "ffn": "n_inner",
    },
    tensors={
        "transformer.wte.weight": TensorSpec("vocabulary hidden", "embed"),
        "transformer.wpe.weight": TensorSpec("position hidden", "embed"),
        "transformer.h.{layer}.ln_1.weight": TensorSpec("hidden", "gain"),
        "transformer.h.{layer}.ln_1.bias": TensorSpec("hidden", "shift"),
        "transformer.h.{layer}.attn.c_attn.weight": TensorSpec(
            "hidden (qkv head head_dim)", "read", after="transformer.h.{layer}.ln_1.weight"
        ),
        "transformer.h.{layer}.attn.c_attn.bias": TensorSpec("(qkv head head_dim)", "inside"),
        "transformer.h.{layer}.attn.c_proj.weight": TensorSpec("(head head_dim) hidden", "write"),
        "transformer.h.{layer}.attn.c_proj.bias": TensorSpec("hidden", "write"),
        "transformer.h.{layer}.ln_2.weight": TensorSpec("hidden", "gain"),
        "transformer.h.{layer}.ln_2.bias": TensorSpec("hidden", "shift"),
        "transformer.h.{layer}.mlp.c_fc.weight": TensorSpec(
            "hidden ffn", "read", after="transformer.h.{layer}.ln_2.weight"
        ),
        "transformer.h.{layer}.mlp.c_fc.bias": TensorSpec("ffn", "inside"),
        "transformer.h.{layer}.mlp.c_proj.weight": TensorSpec("ffn hidden", "write"),
        "transformer.h.{layer}.mlp.c_proj.bias": TensorSpec("hidden", "write"),
        "transformer.ln_f.weight": TensorSpec("hidden", "gain"),
        "transformer.ln_f.bias": TensorSpec("hidden", "shift"),
        "lm_head.weight": TensorSpec("vocabulary hidden", "head", after="transformer.ln_f.weight"),
    },
    defaults={
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_pytorch_tanh",  # gelu_new in its fused form: the same function, faster
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5,
    },
    usual={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-5,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    norm="layer",
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    renamed={r"(?=(wte|wpe|h|ln_f)\.)": "transformer."},  # published GPT-2 files leave the prefix out
    buffers=r"\.attn\.(masked_)?bias$",
)

GPT_NEOX = Family(
    name="gpt_neox",
    keys={
        "vocabulary": "vocab_size",
        "position": "max_position_embeddings",
        "layer": "num_hidden_layers",
        "hidden": "hidden_size",
        "head": "num_attention_heads",
        "ffn": "intermediate_size",
    },
    tensors={
        "gpt_neox.embed_in.weight": TensorSpec("vocabulary hidden", "embed"),
        "gpt_neox.layers.{layer}.input_layernorm.weight": TensorSpec("hidden", "gain"),
        "gpt_neox.layers.{layer}.input_layernorm.bias": TensorSpec("hidden", "shift"),
        "gpt_neox.layers.{layer}.attention.query_key_value.weight": TensorSpec(
            "(head qkv head_dim) hidden", "read", after="gpt_neox.layers.{layer}.input_layernorm.weight"
        ),
        "gpt_neox.layers.{layer}.attention.query_key_value.bias": TensorSpec(
            "(head qkv head_dim)", "inside", when="attention_bias"
        ),
        "gpt_neox.layers.{layer}.attention.dense.weight": TensorSpec("hidden (head head_dim)", "write"),
        "gpt_neox.layers.{layer}.attention.dense.bias": TensorSpec("hidden", "write", when="attention_bias"),
        "gpt_neox.layers.{layer}.post_attention_layernorm.weight": TensorSpec("hidden", "gain"),
        "gpt_neox.layers.{layer}.post_attention_layernorm.bias": TensorSpec("hidden", "shift"),
        "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.weight": TensorSpec(
            "ffn hidden", "read", after="gpt_neox.layers.{layer}.post_attention_layernorm.weight"
        ),
        "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.bias": TensorSpec("ffn", "inside"),
        "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.weight": TensorSpec("hidden ffn", "write"),
        "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.bias": TensorSpec("hidden", "write"),
        "gpt_neox.final_layer_norm.weight": TensorSpec("hidden", "gain"),
        "gpt_neox.final_layer_norm.bias": TensorSpec("hidden", "shift"),
        "embed_out.weight": TensorSpec("vocabulary hidden", "head", after="gpt_neox.final_layer_norm.weight"),
    },
    defaults={
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    },
    usual={
        "vocab_size": 50432,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 44,
        "hidden_size": 6144,
        "num_attention_heads": 64,
        "intermediate_size": 24576,
        "layer_norm_eps": 1e-5,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    norm="layer",
    renamed={
        r"lm_head\.": "embed_out.",  # its name in a loaded model
        r"(?=(embed_in|layers|final_layer_norm)\.)": "gpt_neox.",  # saved without a head
    },
    buffers=r"\.attention\.(masked_)?bias$|rotary_emb\.\w*inv_freq$",
)


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA_USUAL = {
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
QWEN_USUAL = {
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
}


BLOCK = "model.layers.{layer}."
ATTENTION, FEED = BLOCK + "self_attn.", BLOCK + "mlp."
FIRST, SECOND = BLOCK + "input_layernorm.weight", BLOCK + "post_attention_layernorm.weight"
LLAMA_KEYS = {
    "vocabulary": "vocab_size",
    "position": "max_position_embeddings",
    "layer": "num_hidden_layers",
    "hidden": "hidden_size",
    "head": "num_attention_heads",
    "group": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
}


def _biases(when: str = "") -> dict[str, TensorSpec]:
    """Of queries, keys and values."""
    return {
        "q_proj.bias": TensorSpec("(group query head_dim)", "inside", when=when),
        "k_proj.bias": TensorSpec("(group head_dim)", "inside", when=when),
        "v_proj.bias": TensorSpec("(group head_dim)", "inside", when=when),
    }


def _head_norms(offset: float = 0.0) -> dict[str, TensorSpec]:
    """Gains of queries and keys, each head by itself."""
    return {name: TensorSpec("head_dim", "inside", offset=offset) for name in ("q_norm.weight", "k_norm.weight")}


def _block(extra: Mapping[str, TensorSpec], norms: Sequence[str], offset: float = 0.0) -> dict[str, TensorSpec]:
    """One layer of Llama and its like.

    Args:
        extra: tensors inside the attention, by the ends of their names.
        norms: gains before and behind the attention, before and behind the feed-forward part; empty where there is none.
        offset: of all gains.
    """
    first, behind_attention, second, behind_feed = norms
    return {
        **{name: TensorSpec("hidden", "gain", offset=offset) for name in norms if name},
        ATTENTION + "q_proj.weight": TensorSpec("(group query head_dim) hidden", "read", after=first),
        ATTENTION + "k_proj.weight": TensorSpec("(group head_dim) hidden", "read", after=first),
        ATTENTION + "v_proj.weight": TensorSpec("(group head_dim) hidden", "read", after=first),
        **{ATTENTION + suffix: tensor for suffix, tensor in extra.items()},
        ATTENTION + "o_proj.weight": TensorSpec("hidden (group query head_dim)", "write", into=behind_attention),
        ATTENTION + "o_proj.bias": TensorSpec("hidden", "write", into=behind_attention, when="attention_bias"),
        FEED + "gate_proj.weight": TensorSpec("ffn hidden", "read", after=second),
        FEED + "up_proj.weight": TensorSpec("ffn hidden", "read", after=second),
        FEED + "down_proj.weight": TensorSpec("hidden ffn", "write", into=behind_feed),
        FEED + "gate_proj.bias": TensorSpec("ffn", "inside", when="mlp_bias"),
        FEED + "up_proj.bias": TensorSpec("ffn", "inside", when="mlp_bias"),
        FEED + "down_proj.bias": TensorSpec("hidden", "write", into=behind_feed, when="mlp_bias"),
    }


def _llama_like(
    name: str,
    causal: str,
    extra: Mapping[str, TensorSpec],
    usual: Mapping[str, Any],
    *,
    norms: Sequence[str] = (FIRST, "", SECOND, ""),
    offset: float = 0.0,
    defaults: Mapping[str, Any] | None = None,
    **more,
) -> Family:
    """Llama and those that differ from it by norms, and by a few tensors inside the attention."""
    block = _block(extra, norms, offset)
    return Family(
        name=name,
        tensors={
            "model.embed_tokens.weight": TensorSpec("vocabulary hidden", "embed"),
            **block,
            "model.norm.weight": TensorSpec("hidden", "gain", offset=offset),
            "lm_head.weight": TensorSpec("vocabulary hidden", "head", after="model.norm.weight"),
        },
        defaults={
            "architectures": [causal],
            "attention_dropout": 0.0,
            "rms_norm_eps": 1e-6,
            **(defaults or {"hidden_act": "silu", "rope_parameters": ROPE}),
        },
        usual={**LLAMA_USUAL, **usual},
        norm="rms",
        renamed={r"(?=(embed_tokens|layers|norm)\.)": "model."},  # saved without a head
        **{"keys": LLAMA_KEYS, **more},
    )


BIASES = {"attention_bias": False, "mlp_bias": False}
LLAMA = _llama_like("llama", "LlamaForCausalLM", _biases("attention_bias"), BIASES)
MISTRAL = _llama_like(
    "mistral",
    "MistralForCausalLM",
    {},
    {"max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 14336},
    whole_heads=False,
)
QWEN2 = _llama_like("qwen2", "Qwen2ForCausalLM", _biases(), QWEN_USUAL, whole_heads=False)
QWEN3 = _llama_like(
    "qwen3",
    "Qwen3ForCausalLM",
    {**_biases("attention_bias"), **_head_norms()},
    {**QWEN_USUAL, "head_dim": 128, "attention_bias": False},
    whole_heads=False,
)
SMOLLM3 = _llama_like(
    "smollm3",
    "SmolLM3ForCausalLM",
    _biases("attention_bias"),
    {
        **BIASES,
        "vocab_size": 128256,
        "max_position_embeddings": 32768,
        "num_hidden_layers": 36,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    per_layer=("layer_types", "no_rope_layers"),
    whole_heads=False,
)
GRANITE = _llama_like(
    "granite",
    "GraniteForCausalLM",
    _biases("attention_bias"),
    {**BIASES, "residual_multiplier": 1.0},
    whole_heads=False,
)
OLMO2 = _llama_like(
    "olmo2",
    "Olmo2ForCausalLM",
    {
        **_biases("attention_bias"),
        "q_norm.weight": TensorSpec("(group query head_dim)", "inside"),
        "k_norm.weight": TensorSpec("(group head_dim)", "inside"),
    },
    {"vocab_size": 50304, "rms_norm_eps": 1e-5, "attention_bias": False},
    norms=("", SECOND, "", BLOCK + "post_feedforward_layernorm.weight"),
    whole_heads=False,
)
GEMMA3 = _llama_like(
    "gemma3_text",
    "Gemma3ForCausalLM",
    {**_biases("attention_bias"), **_head_norms(offset=1.0)},
    {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_hidden_layers": 26,
        "hidden_size": 2304,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    norms=(
        *(FIRST, SECOND),
        *(BLOCK + "pre_feedforward_layernorm.weight", BLOCK + "post_feedforward_layernorm.weight"),
    ),
    offset=1.0,
    defaults={"hidden_activation": "gelu_pytorch_tanh"},
    scaled_embedding=True,
    buffers=r"rotary_emb\.\w*inv_freq$|embed_tokens\.embed_scale$",
)
PHI3 = _llama_like(
    "phi3",
    "Phi3ForCausalLM",
    {},
    {
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "rms_norm_eps": 1e-5,
    },
    defaults={"hidden_act": "silu", "rope_parameters": ROPE, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    keys={axis: key for axis, key in LLAMA_KEYS.items() if axis != "head_dim"},
    fused={
        ATTENTION + "qkv_proj.weight": [ATTENTION + f"{name}_proj.weight" for name in "qkv"],
        FEED + "gate_up_proj.weight": [FEED + f"{name}_proj.weight" for name in ("gate", "up")],
    },
    whole_heads=False,
)

TABLES = {  # with every tensor there may be
    family.name: family
    for family in (GPT2, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, GRANITE, OLMO2, GEMMA3, PHI3)
}


@cache  # one object for each, so that neighbours of one kind have the same
def _variant(name: str, has: frozenset[str]) -> Family:
    tensors = {key: tensor for key, tensor in TABLES[name].tensors.items() if tensor.when in {"", *has}}
    return replace(TABLES[name], tensors=tensors)


def variant_of(family: Family, config: Mapping) -> Family:
    """A family with the tensors that a model of this `config.json` mapping has: with or without biases."""
    return _variant(family.name, frozenset(key for key in family.biases if family.get(config, key)))


FAMILIES = {name: variant_of(table, {}) for name, table in TABLES.items()}


def family_of(config: Mapping, where: str) -> Family:
    """The family of a `config.json` mapping, with the tensors that its model has; `where` names the file in the error.

    Raises:
        ColpipeError: the model type has no table.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ColpipeError(f"{where}: model_type {kind!r} has no axis table; known are {', '.join(FAMILIES)}")
    return variant_of(FAMILIES[kind], config)
