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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
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
        when: the key of `config.json` that says whether a model has it.
    """

    axes: str
    role: Literal["embed", "write", "gain", "shift", "read", "head", "inside"]
    after: str = ""
    when: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Axes in order: `hidden (qkv head head_dim)` → hidden, qkv, head, head_dim."""
        return tuple(re.findall(r"\w+", self.axes))


@dataclass(frozen=True, eq=False)  # there is one of each kind, so that what follows from it can be looked up by it
class Family:
    """How one family of stock transformers classes stores its weights.

    Attributes:
        keys: axis → its key in `config.json`.
        tensors: tensor name (with `{layer}` where it repeats) → axes and role; the last one is the untied head.
        defaults: `config.json` of a model to train from scratch, sizes and special tokens apart.
        usual: what transformers takes for keys that `config.json` does not have, as far as they are asked for here.
        aliases: other names of keys, as transformers reads them.
        norm: `layer` (mean and bias) or `rms`.
        whole_heads: whether transformers wants `hidden` to be a multiple of the heads even where head_dim is given.
        renamed: other names that stored or loaded models use, as regular expression → name in `tensors`.
        buffers: stored tensors that are no weights, as a regular expression.
    """

    name: str
    keys: Mapping[str, str]
    tensors: Mapping[str, TensorSpec]
    defaults: Mapping[str, Any]
    usual: Mapping[str, Any]
    norm: Literal["layer", "rms"]
    aliases: Mapping[str, str] = field(default_factory=dict)
    whole_heads: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    buffers: str = r"rotary_emb\.\w*inv_freq$"

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one tensor where `config.json` does not say."""
        return self.usual["tie_word_embeddings"]

    @property
    def widths(self) -> list[str]:
        """The axes of `WIDTHS` that this family has."""
        used = {axis for tensor in self.tensors.values() for axis in tensor.names}
        return [axis for axis in WIDTHS if axis in used]

    def get(self, config: Mapping, key: str) -> Any:
        """A key of a `config.json` mapping, as transformers reads it: under an older name, or its class's default."""
        older = [config[old] for old, new in self.aliases.items() if new == key and old in config]
        return older[0] if older else config.get(key, self.usual.get(key))

    def epsilon(self, config: Mapping) -> tuple[str, float]:
        """Key and value of the norms' epsilon in a `config.json` mapping."""
        key = next(key for key in self.defaults if "norm_eps" in key)
        return key, config.get(key, self.usual[key])

    def sizes(self, config: Mapping) -> dict[str, int]:
        """Size of every axis, from a `config.json` mapping."""

        def read(axis: str) -> int | None:
            return self.get(config, self.keys[axis]) if axis in self.keys else None

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

    def require_sizes(self, config: Mapping, where: str) -> dict[str, int]:
        """`sizes`, of which a model can be; `where` names the file in the error.

        Raises:
            ColpipeError: names the key and its value, or the sizes that do not fit each other.
        """
        for axis, key in self.keys.items():
            value = self.get(config, key)
            derived = value is None and axis in ("group", "head_dim", "ffn")
            if not derived and (type(value) is not int or value < 1):
                raise ColpipeError(f"{where}: {key} is {value!r}; it has to be a whole number of 1 or more")
        sizes = self.sizes(config)
        if problem := self.shape_problem(sizes):
            raise ColpipeError(f"{where}: {problem}")
        return sizes

    def variant(self, config: Mapping) -> "Family":
        """The family with the tensors that a model of this `config.json` mapping has: with or without biases."""
        return _variant(self.name, frozenset(key for key in self.biases if self.get(config, key)))

    @cached_property
    def biases(self) -> list[str]:
        """Keys of `config.json` that say whether a model has some of its tensors."""
        return [key for key in self.usual if key.endswith("_bias")]

    def query_scale(self, config: Mapping, origin: int, layer: int) -> float:
        """Factor of the queries of a layer that moves: GPT-2 may divide scores by the number of the layer."""
        key = "scale_attn_by_inverse_layer_idx"
        return (layer + 1) / (origin + 1) if key in self.usual and self.get(config, key) else 1.0

    def is_tied(self, config: Mapping) -> bool:
        """Whether head and embedding are one tensor."""
        return self.get(config, "tie_word_embeddings")

    def resize(
        self, config: Mapping, sizes: Mapping[str, int], tied: bool, layers: Sequence[int | None] | None = None
    ) -> dict:
        """A `config.json` mapping with other axis sizes.

        Args:
            layers: for each layer, the one of `config` that it is; its kind of attention comes with it. Layers without one
                have the kind of the layer as far down.
        """
        kept = {key: value for key, value in config.items() if key not in self.aliases}
        resized = {**kept, **{key: sizes[axis] for axis, key in self.keys.items()}, "tie_word_embeddings": tied}
        resized["architectures"] = self.defaults["architectures"]
        if kinds := resized.pop("layer_types", None):
            depth = sizes["layer"]
            origins = [None] * depth if layers is None else layers
            spread = [layer * len(kinds) // depth if origin is None else origin for layer, origin in enumerate(origins)]
            resized["layer_types"] = [kinds[origin] for origin in spread]
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
        return _parameters(self, tuple(sizes.items()), tied)

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


def _biases(when: str = "") -> dict[str, TensorSpec]:
    """Of queries, keys and values."""
    return {
        "q_proj.bias": TensorSpec("(group query head_dim)", "inside", when=when),
        "k_proj.bias": TensorSpec("(group head_dim)", "inside", when=when),
        "v_proj.bias": TensorSpec("(group head_dim)", "inside", when=when),
    }


def _llama_like(
    name: str, causal: str, extra: Mapping[str, TensorSpec], usual: Mapping[str, Any] | None = None, **more
) -> Family:
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
            attention + "o_proj.bias": TensorSpec("hidden", "write", when="attention_bias"),
            second: TensorSpec("hidden", "gain"),
            feed + "gate_proj.weight": TensorSpec("ffn hidden", "read", after=second),
            feed + "up_proj.weight": TensorSpec("ffn hidden", "read", after=second),
            feed + "down_proj.weight": TensorSpec("hidden ffn", "write"),
            feed + "gate_proj.bias": TensorSpec("ffn", "inside", when="mlp_bias"),
            feed + "up_proj.bias": TensorSpec("ffn", "inside", when="mlp_bias"),
            feed + "down_proj.bias": TensorSpec("hidden", "write", when="mlp_bias"),
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
        usual={**LLAMA_USUAL, **(usual or {})},
        norm="rms",
        renamed={r"(?=(embed_tokens|layers|norm)\.)": "model."},  # saved without a head
        **more,
    )


LLAMA = _llama_like(
    "llama", "LlamaForCausalLM", _biases("attention_bias"), {"attention_bias": False, "mlp_bias": False}
)
QWEN2 = _llama_like("qwen2", "Qwen2ForCausalLM", _biases(), QWEN_USUAL, whole_heads=False)
QWEN3 = _llama_like(
    "qwen3",
    "Qwen3ForCausalLM",
    {
        **_biases("attention_bias"),
        "q_norm.weight": TensorSpec("head_dim", "inside"),
        "k_norm.weight": TensorSpec("head_dim", "inside"),
    },
    {**QWEN_USUAL, "head_dim": 128, "attention_bias": False},
    whole_heads=False,
)

TABLES = {family.name: family for family in (GPT2, GPT_NEOX, LLAMA, QWEN2, QWEN3)}  # with every tensor there may be


@cache  # one object for each, so that neighbours of one kind have the same
def _variant(name: str, has: frozenset[str]) -> Family:
    tensors = {key: tensor for key, tensor in TABLES[name].tensors.items() if tensor.when in {"", *has}}
    return replace(TABLES[name], tensors=tensors)


@cache
def _parameters(family: Family, axes: tuple[tuple[str, int], ...], tied: bool) -> int:
    """`Family.parameters`: a plan asks for those of a few shapes thousands of times."""
    sizes = dict(axes)
    layers = {name: sizes["layer"] if "{layer}" in name else 1 for name, _ in family.table(tied)}
    return sum(layers[name] * math.prod(sizes[axis] for axis in spec.names) for name, spec in family.table(tied))


FAMILIES = {name: table.variant({}) for name, table in TABLES.items()}


def family_of(config: Mapping, where: str) -> Family:
    """The family of a `config.json` mapping, with the tensors that its model has; `where` names the file in the error.

    Raises:
        ColpipeError: the model type has no table.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ColpipeError(f"{where}: model_type {kind!r} has no axis table; known are {', '.join(FAMILIES)}")
    return FAMILIES[kind].variant(config)
