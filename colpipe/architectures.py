"""Model families as tables of named axes (no torch here).

A family is one table: the name of every weight tensor and the axes it is made of, in einops notation. Everything that
changes a model's size is an index list per named axis (`learngene/`), and a parameter count is a sum of products of axis
sizes, so a family is supported by writing its table and the two functions that read and write its configuration.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from colpipe.errors import ColpipeError


@dataclass(frozen=True)
class Family:
    """How one family of stock transformers classes stores its weights.

    Attributes:
        tensors: tensor name (with `{layer}` where it repeats) → its axes, as an einops pattern.
        sizes: reads the size of every axis from a `config.json` mapping.
        resize: returns a copy of a `config.json` mapping with other axis sizes.
        configure: a new `config.json` mapping from axis sizes and special token ids.
    """

    name: str
    tensors: Mapping[str, str]
    sizes: Callable[[Mapping], dict[str, int]]
    resize: Callable[[Mapping, Mapping[str, int]], dict]
    configure: Callable[..., dict]

    def tensor_axes(self, layers: int) -> dict[str, str]:
        """Every tensor of a model with `layers` layers, in table order: name → axes."""
        names = {}
        for template, axes in self.tensors.items():
            for layer in range(layers) if "{layer}" in template else [0]:
                names[template.format(layer=layer)] = axes
        return names

    def parameters(self, sizes: Mapping[str, int]) -> int:
        """Number of parameters of a model with these axis sizes; tied tensors count once."""
        total = 0
        for template, axes in self.tensors.items():
            size = math.prod(sizes[axis] for axis in re.findall(r"\w+", axes))
            total += size * (sizes["layer"] if "{layer}" in template else 1)
        return total


def _gpt2_sizes(config: Mapping) -> dict[str, int]:
    hidden, heads = config["n_embd"], config["n_head"]
    return {
        "vocabulary": config["vocab_size"],
        "position": config["n_positions"],
        "layer": config["n_layer"],
        "hidden": hidden,
        "qkv": 3,
        "head": heads,
        "head_dim": hidden // heads,
        "ffn": config.get("n_inner") or 4 * hidden,
    }


def _gpt2_resize(config: Mapping, sizes: Mapping[str, int]) -> dict:
    return {
        **config,
        "vocab_size": sizes["vocabulary"],
        "n_positions": sizes["position"],
        "n_layer": sizes["layer"],
        "n_embd": sizes["hidden"],
        "n_head": sizes["head"],
        "n_inner": sizes["ffn"],
    }


def _gpt2_configure(sizes: Mapping[str, int], end_of_text: int) -> dict:
    """A GPT-2 to train from scratch: no dropout, and the fused form of its activation (the same function, faster)."""
    base = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_pytorch_tanh",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }
    return _gpt2_resize(base, sizes)


GPT2 = Family(
    name="gpt2",
    tensors={
        "transformer.wte.weight": "vocabulary hidden",
        "transformer.wpe.weight": "position hidden",
        "transformer.h.{layer}.ln_1.weight": "hidden",
        "transformer.h.{layer}.ln_1.bias": "hidden",
        "transformer.h.{layer}.attn.c_attn.weight": "hidden (qkv head head_dim)",
        "transformer.h.{layer}.attn.c_attn.bias": "(qkv head head_dim)",
        "transformer.h.{layer}.attn.c_proj.weight": "(head head_dim) hidden",
        "transformer.h.{layer}.attn.c_proj.bias": "hidden",
        "transformer.h.{layer}.ln_2.weight": "hidden",
        "transformer.h.{layer}.ln_2.bias": "hidden",
        "transformer.h.{layer}.mlp.c_fc.weight": "hidden ffn",
        "transformer.h.{layer}.mlp.c_fc.bias": "ffn",
        "transformer.h.{layer}.mlp.c_proj.weight": "ffn hidden",
        "transformer.h.{layer}.mlp.c_proj.bias": "hidden",
        "transformer.ln_f.weight": "hidden",
        "transformer.ln_f.bias": "hidden",
    },
    sizes=_gpt2_sizes,
    resize=_gpt2_resize,
    configure=_gpt2_configure,
)

FAMILIES = {family.name: family for family in (GPT2,)}


def family_of(config: Mapping, where: str) -> Family:
    """The family of a `config.json` mapping; `where` names the file in the error.

    Raises:
        ColpipeError: the model type has no table.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ColpipeError(f"{where}: model_type {kind!r} has no axis table; known are {', '.join(FAMILIES)}")
    return FAMILIES[kind]
