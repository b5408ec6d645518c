"""The language of the families' tables: named axes, roles, and how weights are stored (no torch here).

A family is one table: the name of every weight tensor, the axes it is made of in einops notation, and what it does to the
residual stream. Everything that changes a model's size is an index list per named axis (`learngene/`), and a parameter
count is a sum of products of axis sizes, so a family is added by writing its table (`families.py`).

    vocabulary, position, layer, hidden, ffn    as everywhere
    head                                        attention heads, each with its own keys and values
    group query                                 with grouped queries: key/value heads, and query heads in each group
    head_dim                                    channels inside a head; never changed
    qkv                                         3, where queries, keys and values are stored in one tensor
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
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
        after: for readers, the gain of the norm whose output they read; empty where they read the stream itself.
        into: for writers, the gain of the norm that what they write goes through before it is added to the stream.
        when: the key of `config.json` that says whether a model has it.
        offset: what the model adds to the stored values: 1 for gains that are stored as what they differ from 1 by.
    """

    axes: str
    role: Literal["embed", "write", "gain", "shift", "read", "head", "inside"]
    after: str = ""
    into: str = ""
    when: str = ""
    offset: float = 0.0

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
        fused: stored name (with `{layer}`) → the tensors of the table that it is made of, one below the other.
        per_layer: keys of `config.json` that hold a list with an entry for each layer.
        scaled_embedding: whether the model multiplies embeddings by √hidden.
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
    fused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    per_layer: Sequence[str] = ("layer_types",)
    scaled_embedding: bool = False
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

    @cached_property
    def post_gains(self) -> frozenset[str]:
        """Gains of the norms that stand behind what a block computes, before it is added to the stream."""
        return frozenset(tensor.into for tensor in self.tensors.values() if tensor.into)

    @cached_property
    def final_gain(self) -> str:
        """The gain of the norm that the head reads."""
        return next(tensor.after for tensor in self.tensors.values() if tensor.role == "head")

    @property
    def rotation_problem(self) -> str:
        """Why the residual stream cannot be turned to another basis with the function unchanged; empty where it can."""
        if self.norm != "rms":
            return f"{self.name} has LayerNorm, whose residual stream can only be permuted"
        if self.post_gains:
            return f"{self.name} has norms behind its blocks, whose gains belong to the channels as they are"
        return ""

    @cached_property
    def norms_all_heads(self) -> bool:
        """Whether queries and keys are normalised over all heads together, so that every head depends on the others."""
        return any(
            tensor.role == "inside" and "group" in tensor.names and name.endswith("norm.weight")
            for name, tensor in self.tensors.items()
        )

    @cached_property
    def normed_inside(self) -> frozenset[str]:
        """Tensors that make what a norm inside the attention reads: those of `q_proj`, where there is a `q_norm`."""
        inside = [name for name, tensor in self.tensors.items() if tensor.role == "inside"]
        norms = [name.removesuffix("_norm.weight") for name in inside if name.endswith("_norm.weight")]
        return frozenset({f"{norm}_proj.{kind}" for norm in norms for kind in ("weight", "bias")} & set(self.tensors))

    def factor(self, name: str, hidden: int, tied: bool) -> float:
        """What a stored tensor is multiplied by to be in the scale of the stream and of the logits, whatever the width.

        A model that multiplies its embeddings by √hidden has another factor at another width. A head that is the same tensor
        takes the embedding with that factor; the final norm's gain makes up for it.
        """
        if not self.scaled_embedding:
            return 1.0
        if self.tensors[name].role == "embed":
            return hidden**0.5
        return hidden**-0.5 if tied and name == self.final_gain else 1.0

    def write_factor(self, config: Mapping) -> float:
        """What a block's output is multiplied by when it is added to the stream."""
        return self.get(config, "residual_multiplier") if "residual_multiplier" in self.usual else 1.0

    def stored_names(self, tied: bool) -> Iterator[tuple[str, list[str]]]:
        """(stored name with `{layer}`, the tensors of the table that it is made of) of everything that is stored."""
        fused = {part: name for name, parts in self.fused.items() for part in parts}
        done = set()
        for name, _ in self.table(tied):
            stored = fused.get(name, name)
            if stored not in done:
                done.add(stored)
                yield stored, list(self.fused.get(stored, [name]))

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
            layers: for each layer, the one of `config` that it is; its kind of attention, and what else is said layer by
                layer, comes with it. Layers without one are of the kind of the layer as far down.
        """
        kept = {key: value for key, value in config.items() if key not in self.aliases}
        resized = {**kept, **{key: sizes[axis] for axis, key in self.keys.items()}, "tie_word_embeddings": tied}
        resized["architectures"] = self.defaults["architectures"]
        depth, before = sizes["layer"], self.get(config, self.keys["layer"])
        origins = [None] * depth if layers is None else layers
        spread = [layer * before // depth if origin is None else origin for layer, origin in enumerate(origins)]
        for key in self.per_layer:
            if kinds := resized.pop(key, None):
                resized[key] = [kinds[origin] for origin in spread]
        return resized

    def configure(self, sizes: Mapping[str, int], tied: bool, end_of_text: int) -> dict:
        """`config.json` of a model to train from scratch: no dropout, other settings as `defaults`."""
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
        usual = deepcopy(self.defaults)  # families share some of them, and transformers writes into `rope_parameters`
        return self.resize({"model_type": self.name, **usual, **special}, sizes, tied)

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


@cache
def _parameters(family: Family, axes: tuple[tuple[str, int], ...], tied: bool) -> int:
    """`Family.parameters`: a plan asks for those of a few shapes thousands of times."""
    sizes = dict(axes)
    layers = {name: sizes["layer"] if "{layer}" in name else 1 for name, _ in family.table(tied)}
    return sum(layers[name] * math.prod(sizes[axis] for axis in spec.names) for name, spec in family.table(tied))
