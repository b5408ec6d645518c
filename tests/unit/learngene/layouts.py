"""What each stored number of a model stands for, written by hand, and LInit one number at a time: the tests' reference.

Nothing of colpipe's tables, index maps or gathers is used here.

    parts     GPT-2's c_attn: the queries of all heads, then the keys, then the values
    fused     NeoX's query_key_value: query, key and value of the first head, then those of the second
    heads     the heads one after the other
    groups    the key/value heads one after the other
    queries   the query heads one after the other; head h reads key/value head h // (heads / kv_heads)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import getitem
from pathlib import Path

import torch
from safetensors.torch import load_file

from colpipe.config.parts import Shape

GPT2 = {
    "transformer.wte.weight": "vocabulary hidden",
    "transformer.wpe.weight": "position hidden",
    "transformer.h.{layer}.ln_1.weight": "hidden",
    "transformer.h.{layer}.ln_1.bias": "hidden",
    "transformer.h.{layer}.attn.c_attn.weight": "hidden parts",  # Conv1D: (in, out)
    "transformer.h.{layer}.attn.c_attn.bias": "parts",
    "transformer.h.{layer}.attn.c_proj.weight": "heads hidden",
    "transformer.h.{layer}.attn.c_proj.bias": "hidden",
    "transformer.h.{layer}.ln_2.weight": "hidden",
    "transformer.h.{layer}.ln_2.bias": "hidden",
    "transformer.h.{layer}.mlp.c_fc.weight": "hidden ffn",
    "transformer.h.{layer}.mlp.c_fc.bias": "ffn",
    "transformer.h.{layer}.mlp.c_proj.weight": "ffn hidden",
    "transformer.h.{layer}.mlp.c_proj.bias": "hidden",
    "transformer.ln_f.weight": "hidden",
    "transformer.ln_f.bias": "hidden",
    "lm_head.weight": "vocabulary hidden",
}
GPT_NEOX = {
    "gpt_neox.embed_in.weight": "vocabulary hidden",
    "gpt_neox.layers.{layer}.input_layernorm.weight": "hidden",
    "gpt_neox.layers.{layer}.input_layernorm.bias": "hidden",
    "gpt_neox.layers.{layer}.attention.query_key_value.weight": "fused hidden",  # Linear: (out, in)
    "gpt_neox.layers.{layer}.attention.query_key_value.bias": "fused",
    "gpt_neox.layers.{layer}.attention.dense.weight": "hidden heads",
    "gpt_neox.layers.{layer}.attention.dense.bias": "hidden",
    "gpt_neox.layers.{layer}.post_attention_layernorm.weight": "hidden",
    "gpt_neox.layers.{layer}.post_attention_layernorm.bias": "hidden",
    "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.weight": "ffn hidden",
    "gpt_neox.layers.{layer}.mlp.dense_h_to_4h.bias": "ffn",
    "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.weight": "hidden ffn",
    "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.bias": "hidden",
    "gpt_neox.final_layer_norm.weight": "hidden",
    "gpt_neox.final_layer_norm.bias": "hidden",
    "embed_out.weight": "vocabulary hidden",
}
LLAMA = {
    "model.embed_tokens.weight": "vocabulary hidden",
    "model.layers.{layer}.input_layernorm.weight": "hidden",
    "model.layers.{layer}.self_attn.q_proj.weight": "queries hidden",
    "model.layers.{layer}.self_attn.k_proj.weight": "groups hidden",
    "model.layers.{layer}.self_attn.v_proj.weight": "groups hidden",
    "model.layers.{layer}.self_attn.o_proj.weight": "hidden queries",
    "model.layers.{layer}.post_attention_layernorm.weight": "hidden",
    "model.layers.{layer}.mlp.gate_proj.weight": "ffn hidden",
    "model.layers.{layer}.mlp.up_proj.weight": "ffn hidden",
    "model.layers.{layer}.mlp.down_proj.weight": "hidden ffn",
    "model.norm.weight": "hidden",
    "lm_head.weight": "vocabulary hidden",
}
QWEN2 = {
    **LLAMA,
    "model.layers.{layer}.self_attn.q_proj.bias": "queries",
    "model.layers.{layer}.self_attn.k_proj.bias": "groups",
    "model.layers.{layer}.self_attn.v_proj.bias": "groups",
}
QWEN3 = {
    **LLAMA,
    "model.layers.{layer}.self_attn.q_norm.weight": "head_dim",
    "model.layers.{layer}.self_attn.k_norm.weight": "head_dim",
}
LAYOUTS = {"gpt2": GPT2, "gpt_neox": GPT_NEOX, "llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}
HEADS = ("lm_head.weight", "embed_out.weight")
GAINS = ("ln_1.weight", "ln_2.weight", "ln_f.weight", "layernorm.weight", "layer_norm.weight", "model.norm.weight")

Pick = Callable[[str, int], int | None]  # field of Shape, index in the target → index in the source, or None


def layout(family: str, tied: bool, layers: int) -> Iterator[tuple[str, int | None, list[str]]]:
    """(name with `{layer}`, layer or None, what its dimensions are) of every stored tensor."""
    for name, dimensions in LAYOUTS[family].items():
        if not (tied and name in HEADS):
            for layer in range(layers) if "{layer}" in name else [None]:
                yield name, layer, dimensions.split()


def length(dimension: str, shape: Shape, vocabulary: int, positions: int) -> int:
    """Size of a stored dimension."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "vocabulary": vocabulary,
        "position": positions,
        "hidden": shape.hidden,
        "ffn": shape.ffn,
        "head_dim": shape.head_dim,
        "parts": 3 * queries,
        "fused": 3 * queries,
        "heads": queries,
        "queries": queries,
        "groups": keys,
    }[dimension]


def origin(dimension: str, index: int, target: Shape, source: Shape, pick: Pick) -> int | None:
    """Where a target's index of a stored dimension lies in a source's; None: nowhere."""
    if dimension in ("vocabulary", "position", "head_dim"):
        return index
    if dimension in ("hidden", "ffn"):
        return pick(dimension, index)
    inside = index % target.head_dim
    row = index // target.head_dim  # a head's query, key or value
    if dimension == "parts":
        part, head = divmod(row, target.heads)
        head = pick("heads", head)
        row = None if head is None else part * source.heads + head
    elif dimension == "fused":
        head, part = divmod(row, 3)
        head = pick("heads", head)
        row = None if head is None else head * 3 + part
    elif dimension == "heads":
        row = pick("heads", row)
    elif dimension == "groups":
        row = pick("kv_heads", row)
    elif dimension == "queries":
        queries = target.heads // target.kv_heads
        group = pick("kv_heads", row // queries)
        row = None if group is None else group * queries + row % queries
    return None if row is None else row * target.head_dim + inside


def last_again(source: Shape, target: Shape) -> Pick:
    """All of a smaller source, then its last indices again; enough for targets of up to twice its size."""

    def pick(axis: str, index: int) -> int:
        have, want = getattr(source, axis), getattr(target, axis)
        return index if index < have else index - (want - have)

    return pick


def same_index(source: Shape) -> Pick:
    """The same index, where the source has it."""
    return lambda axis, index: index if index < getattr(source, axis) else None


@dataclass(frozen=True)
class Side:
    """One neighbour: its tensors, its shape, and where the target's indices and layers are found in it."""

    tensors: dict[str, torch.Tensor]
    shape: Shape
    pick: Pick
    layers: Sequence[int | None]

    def numbers(self, name: str, layer: int | None, dimensions: list[str], lengths: list[int], target: Shape) -> list:
        """Its numbers for one of the target's tensors, in order; None where it has none."""
        own_layer = None if layer is None else self.layers[layer]
        missing = layer is not None and own_layer is None
        places = [
            [origin(dimension, index, target, self.shape, self.pick) for index in range(count)]
            for dimension, count in zip(dimensions, lengths, strict=True)
        ]
        value = None if missing else self.tensors[name.format(layer=own_layer)].double().tolist()
        return [None if missing or None in at else reduce(getitem, at, value) for at in product(*places)]


def interpolate(architecture, target: Shape, small: Side, large: Side, alphas: list[float], gain: float = 1.0) -> dict:
    """θ = α · small + (1 − α) · large, or the larger's own where the smaller has nothing; in float64.

    Args:
        alphas: one per layer; their mean serves what is outside the layers.
        gain: factor of the larger's norm gains.
    """
    result = {}
    for name, layer, dimensions in layout(architecture.family, architecture.is_tied, target.layers):
        lengths = [length(each, target, architecture.vocabulary, architecture.positions) for each in dimensions]
        alpha = sum(alphas) / len(alphas) if layer is None else alphas[layer]
        factor = gain if name.endswith(GAINS) else 1.0
        ours, theirs = (side.numbers(name, layer, dimensions, lengths, target) for side in (small, large))
        mixed = []
        for a, b in zip(ours, theirs, strict=True):
            mixed.append(factor * b if a is None else alpha * a + (1 - alpha) * factor * b)
        result[name.format(layer=layer)] = torch.tensor(mixed, dtype=torch.float64).view(lengths)
    return result


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """A folder's tensors, read by safetensors."""
    return load_file(folder / "model.safetensors")
