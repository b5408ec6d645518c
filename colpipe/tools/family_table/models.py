"""Tiny random models of a stock class, each of known axis sizes: what `colpipe family` looks at."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
from transformers.utils import logging

from colpipe.errors import ColpipeError
from colpipe.learngene.stored import read_config

AXIS_KEYS = {  # names that classes have for the axes; the first that a class has is taken
    "vocabulary": ("vocab_size",),
    "position": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
    "layer": ("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "head": ("num_attention_heads", "num_heads", "n_head", "n_heads"),
    "group": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim", "kv_channels"),
    "ffn": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff"),
}
# No product or sum that a tensor may have as a dimension is another's; hidden is a multiple of all heads.
BASE = {"vocabulary": 131, "position": 40, "layer": 2, "hidden": 180, "head": 6, "group": 3, "head_dim": 16, "ffn": 76}
CHANGES = {
    **{axis: {axis: size} for axis, size in {"vocabulary": 137, "position": 44, "layer": 5, "hidden": 360}.items()},
    **{"query": {"head": 12}, "group": {"head": 12, "group": 6}, "head_dim": {"head_dim": 24}, "ffn": {"ffn": 92}},
}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZED = ("dtype", "torch_dtype", "transformers_version", "architectures", "model_type", "quantization_config")


@dataclass(frozen=True)
class Stock:
    """A class of causal language models in transformers.

    Attributes:
        name: its `model_type`.
        usual: the class's default of every key.
        said: what every model of it gets besides sizes.
        keys: axis → its key.
        own_width: whether heads together may be wider or narrower than the residual stream.
    """

    name: str
    usual: Mapping[str, Any]
    said: Mapping[str, Any]
    keys: Mapping[str, str]
    own_width: bool = True

    def sizes(self, **changes: int) -> dict[str, int]:
        """Sizes of all axes that a model of the class can have: what it has no key for follows from the others."""
        sizes = {**BASE, **changes}
        if "group" not in self.keys:
            sizes["group"] = sizes["head"]
        if not self.own_width:
            sizes["hidden"] = sizes["head"] * sizes["head_dim"]
        return {**sizes, "query": sizes["head"] // sizes["group"], "qkv": 3}

    def config(self, sizes: Mapping[str, int], **more):
        """A configuration of these sizes."""
        own = {key: sizes[axis] for axis, key in self.keys.items()}
        return CONFIG_MAPPING[self.name](**{**self.said, **own, "tie_word_embeddings": False, **more})

    def shapes(self, sizes: Mapping[str, int], **more) -> dict[str, tuple[int, ...]]:
        """Parameter name → shape, of a model without weights."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config(sizes, **more))
        return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}

    def model(self, sizes: Mapping[str, int], **more):
        """A model whose every parameter is random; its attention is the plain one, in which what is masked is exactly 0."""
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(self.config(sizes, **more), attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.2)
        return model

    def probes(self) -> Iterator[dict[str, int]]:
        """Sizes of models of which each changes one axis of the first alone, as far as the class lets it."""
        yield self.sizes()
        for axis, change in CHANGES.items():
            yield self.sizes(**(change if axis != "group" or "group" in self.keys else {"head": 10}))


def stock(model: str, said: Mapping[str, Any]) -> Stock:
    """The class of a model folder, or of a model type; `said`: keys of its configuration.

    Raises:
        ColpipeError: transformers has no such type, it has no causal language model, the class has no key for an axis, its
            tensors are no matrices, or no tiny model of it runs.
    """
    kind, given = _asked(model)
    usual = json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False))
    aliases = CONFIG_MAPPING[kind].attribute_map
    keys = {}
    for axis, names in AXIS_KEYS.items():
        own = [aliases.get(name, name) for name in names]
        keys[axis] = next((name for name in own if name in usual), own[0])
        if axis not in ("group", "head_dim", "ffn") and keys[axis] not in usual:
            raise ColpipeError(
                f"{model}: {CONFIG_MAPPING[kind].__name__} has no key for the axis {axis}: none of {', '.join(names)}"
            )
    sizes = set(keys.values()) | {old for old, new in aliases.items() if new in keys.values()}
    kept = {
        key: value
        for key, value in given.items()
        if key not in {*SIZED, *sizes} and not key.endswith("token_id") and not isinstance(value, list | dict)
    }
    found = Stock(kind, usual, {**kept, **SPECIAL, **said}, keys)
    _require_matrices(found, model)
    if not _counts(found, "head_dim"):
        fixed = {axis: key for axis, key in keys.items() if axis != "head_dim" or key in usual}
        found = replace(found, keys=fixed, own_width=False)
    for axis in ("group", "ffn"):  # a class need not say that it reads a key, nor read one that it takes
        if not _counts(found, axis):
            found = replace(found, keys={each: key for each, key in found.keys.items() if each != axis})
    try:
        run(found.model(found.sizes()))
    except Exception as error:
        raise ColpipeError(
            f"{model}: a tiny {kind} cannot be made and run, {' '.join(str(error).split())[:200]}; a key that belongs to "
            f"sizes may be given with --set KEY=VALUE; tried: {_brief(found.sizes())}"
        ) from None
    return found


def _brief(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def _asked(model: str) -> tuple[str, dict]:
    """Model type, and what its `config.json` says."""
    given = read_config(Path(model)) if Path(model).is_dir() else {"model_type": model}
    kind = given.get("model_type")
    if kind not in CONFIG_MAPPING:
        near = get_close_matches(str(kind), list(CONFIG_MAPPING), 3)
        meant = f"did you mean {' or '.join(near)}?" if near else "give a model folder, or a type that it has"
        raise ColpipeError(f"{model}: transformers has no model type {kind!r}; {meant}")
    if CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ColpipeError(f"{model}: transformers has no causal language model of type {kind!r}")
    if parts := getattr(CONFIG_MAPPING[kind], "sub_configs", None):
        types = ", ".join(getattr(part, "model_type", "") or name for name, part in parts.items())
        raise ColpipeError(f"{model}: a {kind} is made of parts ({types}); give the type of the one that writes text")
    return kind, given


def _require_matrices(found: Stock, model: str) -> None:
    """Refuse what stacks its matrices: a table has no axis for experts.

    Raises:
        ColpipeError: names the tensor.
    """
    try:
        shapes = found.shapes(found.sizes())
    except Exception:  # some classes cannot have these sizes; they are told of later
        return
    if stacked := next((name for name, shape in shapes.items() if len(shape) > 2), None):
        raise ColpipeError(
            f"{model}: {stacked} has {len(shapes[stacked])} dimensions, {shapes[stacked]}: a mixture of experts, or a "
            "convolution; tables have axes for vectors and matrices only"
        )


def _counts(found: Stock, axis: str) -> bool:
    """Whether a key changes the tensors of a model that runs."""
    other = {"group": {"group": 6}, "head_dim": {"head_dim": 24}, "ffn": {"ffn": 92}}[axis]
    try:
        changed = found.shapes(found.sizes(**other)) != found.shapes(found.sizes())
        if changed:
            run(found.model(found.sizes(**other)))
    except Exception:  # whatever a class does with a size that it cannot have
        return False
    return changed


def ids(rows: int = 4, tokens: int = 12) -> torch.Tensor:
    """Token ids (rows, tokens), none of which is special."""
    return torch.randint(1, BASE["vocabulary"], (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model) -> torch.Tensor:
    """Logits of the tiny text."""
    return model(input_ids=ids(), use_cache=False).logits


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers warns of sizes that nobody would train."""
    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
