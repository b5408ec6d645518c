"""Model families as tables of named axes (no torch here).

A family is one table: the name of every weight tensor, the axes it is made of in einops notation, and what it does to the
residual stream. Everything that changes a model's size is an index list per named axis (`learngene/`), and a parameter
count is a sum of products of axis sizes, so a family is added by writing its table.

    vocabulary, position, layer, hidden, ffn    as everywhere
    head                                        attention heads, each with its own keys and values
    group query                                 with grouped queries: key/value heads, and query heads in each group
    head_dim                                    channels inside a head; never changed
    qkv                                         3, where queries, keys and values are stored in one tensor
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from colpipe.errors import ColpipeError

WIDTHS = ("hidden", "head", "group", "query", "ffn")  # axes that change with the width; `layer` is the depth


@dataclass(frozen=True)
class TensorSpec:
    """One weight tensor of a family.

    Attributes:
        axes: its axes in order, as an einops pattern.
        role: what it does to the residual stream: `embed` and `write` put channels into it, `gain` and `shift` belong to
            a norm over it, `read` and `head` take normalised channels out of it, `inside` never meets it.
        after: for readers, the gain of the norm whose output they read.
    """

    axes: str
    role: Literal["embed", "write", "gain", "shift", "read", "head", "inside"]
    after: str = ""

    @property
    def names(self) -> list[str]:
        """Axes in order: `hidden (qkv head head_dim)` → hidden, qkv, head, head_dim."""
        return re.findall(r"\w+", self.axes)


@dataclass(frozen=True)
class Family:
    """How one family of stock transformers classes stores its weights.

    Attributes:
        keys: axis → its key in `config.json`.
        tensors: tensor name (with `{layer}` where it repeats) → axes and role; the last one is the untied head.
        defaults: `config.json` of a model to train from scratch, sizes and special tokens apart.
        norm: `layer` (mean and bias) or `rms`.
        tied: whether head and embedding are one tensor where `config.json` does not say.
        whole_heads: whether transformers wants `hidden` to be a multiple of the heads even where head_dim is given.
        renamed: other names that stored or loaded models use, as regular expression → name in `tensors`.
        buffers: stored tensors that are no weights, as a regular expression.
    """

    name: str
    keys: Mapping[str, str]
    tensors: Mapping[str, TensorSpec]
    defaults: Mapping[str, Any]
    norm: Literal["layer", "rms"]
    tied: bool = False
    whole_heads: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    buffers: str = r"rotary_emb\.\w*inv_freq$"

    @property
    def widths(self) -> list[str]:
        """The axes of `WIDTHS` that this family has."""
        used = {axis for tensor in self.tensors.values() for axis in tensor.names}
        return [axis for axis in WIDTHS if axis in used]

    def epsilon(self, config: Mapping) -> tuple[str, float]:
        """Key and value of the norms' epsilon in a `config.json` mapping."""
        key = next(key for key in self.defaults if "norm_eps" in key)
        return key, config.get(key, self.defaults[key])

    def sizes(self, config: Mapping) -> dict[str, int]:
        """Size of every axis, from a `config.json` mapping."""

        def read(axis: str) -> int | None:
            return config.get(self.keys.get(axis))

        hidden, heads = read("hidden"), read("head")
        groups = read("group") or heads
        return {
            "vocabulary": read("vocabulary"),
            "position": read("position"),
            "layer": read("layer"),
            "hidden": hidden,
            "qkv": 3,
            "head": heads,
            "group": groups,
            "query": heads // groups,
            "head_dim": read("head_dim") or hidden // heads,
            "ffn": read("ffn") or 4 * hidden,
        }

    def arithmetic(self, config: Mapping) -> dict[str, object]:
        """What neighbours must agree on beside their sizes: rotary embeddings, and how a block adds up.

        Older configurations spread the rotary settings over several keys.
        """
        older = {
            "rope_theta": config.get("rope_theta", config.get("rotary_emb_base")),
            "partial_rotary_factor": config.get("rotary_pct"),
            **{
                "rope_type" if key == "type" else key: value
                for key, value in (config.get("rope_scaling") or {}).items()
            },
        }
        usual: dict[str, Any] = {"rope_type": "default", **self.defaults.get("rope_parameters", {})}
        given = {key: value for key, value in older.items() if value is not None}
        rotary = {**usual, **given, **(config.get("rope_parameters") or {})}
        parallel = config.get("use_parallel_residual", self.defaults.get("use_parallel_residual"))
        return {"rope_parameters": rotary, "use_parallel_residual": parallel}

    def is_tied(self, config: Mapping) -> bool:
        """Whether head and embedding are one tensor."""
        return config.get("tie_word_embeddings", self.tied)

    def resize(self, config: Mapping, sizes: Mapping[str, int], tied: bool) -> dict:
        """A `config.json` mapping with other axis sizes; per-layer lists are left for transformers to derive."""
        resized = {**config, **{key: sizes[axis] for axis, key in self.keys.items()}, "tie_word_embeddings": tied}
        resized.pop("layer_types", None)
        return resized

    def configure(self, sizes: Mapping[str, int], tied: bool, end_of_text: int) -> dict:
        """`config.json` of a model to train from scratch: no dropout, other settings as `defaults`."""
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
        return self.resize({"model_type": self.name, **self.defaults, **special}, sizes, tied)

    def table(self, tied: bool) -> Iterator[tuple[str, TensorSpec]]:
        """(name with `{layer}`, tensor) of everything that is stored; a tied head is the embedding and stored once."""
        return ((name, tensor) for name, tensor in self.tensors.items() if not (tied and tensor.role == "head"))

    def parameters(self, sizes: Mapping[str, int], tied: bool) -> int:
        """Number of parameters of a model with these axis sizes; tied tensors count once."""
        total = 0
        for name, tensor in self.table(tied):
            size = math.prod(sizes[axis] for axis in tensor.names)
            total += size * (sizes["layer"] if "{layer}" in name else 1)
        return total

    def shape_problem(self, sizes: Mapping[str, int]) -> str | None:
        """Why transformers has no model of these sizes, or None."""
        if sizes["head"] % sizes["group"]:
            return f"heads {sizes['head']} is not a multiple of kv_heads {sizes['group']}"
        if "group" not in self.keys and sizes["group"] != sizes["head"]:
            return f"kv_heads is {sizes['group']} of {sizes['head']} heads, but {self.name} has no grouped queries"
        if "head_dim" not in self.keys and sizes["head_dim"] * sizes["head"] != sizes["hidden"]:
            return f"{self.name} has no head_dim of its own: hidden must be heads × head_dim"
        if self.whole_heads and sizes["hidden"] % sizes["head"]:
            return f"hidden {sizes['hidden']} is not a multiple of heads {sizes['head']}, which {self.name} wants"
        return None


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
    norm="layer",
    tied=True,
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
        "gpt_neox.layers.{layer}.attention.query_key_value.bias": TensorSpec("(head qkv head_dim)", "inside"),
        "gpt_neox.layers.{layer}.attention.dense.weight": TensorSpec("hidden (head head_dim)", "write"),
        "gpt_neox.layers.{layer}.attention.dense.bias": TensorSpec("hidden", "write"),
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
    norm="layer",
    renamed={r"^lm_head\.": "embed_out."},  # its name in a loaded model
    buffers=r"\.attention\.(masked_)?bias$|rotary_emb\.\w*inv_freq$",
)


def _llama_like(name: str, causal: str, extra: Mapping[str, TensorSpec], **more) -> Family:
    """Llama and those that differ from it by a few tensors inside the attention."""
    block, attention, feed = "model.layers.{layer}.", "model.layers.{layer}.self_attn.", "model.layers.{layer}.mlp."
    first, second = block + "input_layernorm.weight", block + "post_attention_layernorm.weight"
    return Family(
        name=name,
        keys={
            "vocabulary": "vocab_size",
            "position": "max_position_embeddings",
            "layer": "num_hidden_layers",
            "hidden": "hidden_size",
            "head": "num_attention_heads",
            "group": "num_key_value_heads",
            "head_dim": "head_dim",
            "ffn": "intermediate_size",
        },
        tensors={
            "model.embed_tokens.weight": TensorSpec("vocabulary hidden", "embed"),
            first: TensorSpec("hidden", "gain"),
            attention + "q_proj.weight": TensorSpec("(group query head_dim) hidden", "read", after=first),
            attention + "k_proj.weight": TensorSpec("(group head_dim) hidden", "read", after=first),
            attention + "v_proj.weight": TensorSpec("(group head_dim) hidden", "read", after=first),
            **{attention + suffix: tensor for suffix, tensor in extra.items()},
            attention + "o_proj.weight": TensorSpec("hidden (group query head_dim)", "write"),
            second: TensorSpec("hidden", "gain"),
            feed + "gate_proj.weight": TensorSpec("ffn hidden", "read", after=second),
            feed + "up_proj.weight": TensorSpec("ffn hidden", "read", after=second),
            feed + "down_proj.weight": TensorSpec("hidden ffn", "write"),
            "model.norm.weight": TensorSpec("hidden", "gain"),
            "lm_head.weight": TensorSpec("vocabulary hidden", "head", after="model.norm.weight"),
        },
        defaults={
            "architectures": [causal],
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        norm="rms",
        **more,
    )


LLAMA = _llama_like("llama", "LlamaForCausalLM", {})
QWEN2 = _llama_like(
    "qwen2",
    "Qwen2ForCausalLM",
    {
        "q_proj.bias": TensorSpec("(group query head_dim)", "inside"),
        "k_proj.bias": TensorSpec("(group head_dim)", "inside"),
        "v_proj.bias": TensorSpec("(group head_dim)", "inside"),
    },
    whole_heads=False,
)
QWEN3 = _llama_like(
    "qwen3",
    "Qwen3ForCausalLM",
    {"q_norm.weight": TensorSpec("head_dim", "inside"), "k_norm.weight": TensorSpec("head_dim", "inside")},
    whole_heads=False,
)

FAMILIES = {family.name: family for family in (GPT2, GPT_NEOX, LLAMA, QWEN2, QWEN3)}


def family_of(config: Mapping, where: str) -> Family:
    """The family of a `config.json` mapping; `where` names the file in the error.

    Raises:
        ColpipeError: the model type has no table.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ColpipeError(f"{where}: model_type {kind!r} has no axis table; known are {', '.join(FAMILIES)}")
    return FAMILIES[kind]
