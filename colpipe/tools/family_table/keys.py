"""What a guessed table says of `config.json`, and of names in files: read from the class and from tiny models of it."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import CONFIG_MAPPING

from colpipe.architectures.settable import FIXED
from colpipe.tools.family_table.models import Stock

KNOWN = ("residual_multiplier", "scale_attn_by_inverse_layer_idx")  # factors that `Family` takes into account
BUFFERS = r"rotary_emb\.\w*inv_freq$"


def wants_whole_heads(full: Stock) -> bool:
    """Whether the class refuses a width that is no multiple of the heads."""
    sizes = full.sizes()
    sizes["hidden"] += 2
    try:
        full.shapes(sizes)
    except Exception:  # whatever the class raises
        return True
    return False


def per_layer(full: Stock) -> tuple[str, ...]:
    """Keys that hold an entry for each layer; `layer_types` where there are none, as in every table."""
    two, five = (json.loads(full.config(full.sizes(layer=depth)).to_json_string(use_diff=False)) for depth in (2, 5))

    def length(config: Mapping, key: str) -> int:
        return len(config[key]) if isinstance(config.get(key), list) else 0

    return tuple(sorted({"layer_types", *(key for key in two if (length(two, key), length(five, key)) == (2, 5))}))


def aliases(full: Stock) -> dict[str, str]:
    """Other names that the class reads the keys of sizes under."""
    mapped = CONFIG_MAPPING[full.name].attribute_map
    return {old: new for old, new in mapped.items() if new in full.keys.values()}


def usual(full: Stock, switches: Iterable[str]) -> dict[str, Any]:
    """The class's defaults that a table needs; not those that follow from the width or the heads."""
    others = [
        json.loads(CONFIG_MAPPING[full.name](**{key: 2 * full.usual[key]}).to_json_string(use_diff=False))
        for key in (full.keys["hidden"], full.keys["head"])
    ]
    own = {full.keys[axis] for axis in ("hidden", "head")}
    found = {
        key: full.usual[key]
        for key in full.keys.values()
        if full.usual.get(key) is not None
        and (key in own or all(other.get(key) == full.usual[key] for other in others))
    }
    more = [key for key in full.usual if "norm_eps" in key or key in {*switches, *KNOWN}]
    tied = full.usual.get("tie_word_embeddings", True)
    return {**found, **{key: full.usual[key] for key in more}, "tie_word_embeddings": tied}


def settable(full: Stock) -> dict[str, Any]:
    """Entry of `SETTABLE`: all keys of the class that are neither sizes nor `FIXED`."""
    left = {key: value for key, value in full.usual.items() if key not in {*FIXED, *full.keys.values()}}
    return {key: [] if isinstance(value, list) else value for key, value in sorted(left.items())}


def defaults(full: Stock, causal: str) -> dict[str, Any]:
    """`config.json` of a model to train from scratch: no dropout, the class's own activation, epsilon and rotation."""
    found: dict[str, Any] = {"architectures": [causal]}
    for key, value in settable(full).items():
        one_rotation = isinstance(value, dict) and value and not any(isinstance(each, dict) for each in value.values())
        if ("dropout" in key or "pdrop" in key) and isinstance(value, int | float):
            found[key] = 0.0
        elif (
            "norm_eps" in key
            or re.search(r"^hidden_act|^activation", key)
            or (key == "rope_parameters" and one_rotation)
        ):
            found[key] = value
    return found


def other_names(tiny, names: Mapping[str, str]) -> dict[str, str]:
    """Patterns of names in a loaded model, and in a model that was saved without its head."""
    found = {}
    for loaded, stored in names.items():
        if "{layer}" not in loaded:
            found[re.escape(loaded.rpartition(".")[0] + ".")] = stored.rpartition(".")[0] + "."
    prefix = f"{tiny.base_model_prefix}."
    own = [
        name.removeprefix(prefix).partition(".")[0] for name, _ in tiny.named_parameters() if name.startswith(prefix)
    ]
    return {**found, rf"(?=({'|'.join(dict.fromkeys(own))})\.)": prefix} if own else found


def buffers(tiny) -> str:
    """Stored tensors that are no weights."""
    more = {".".join(name.split(".")[-2:]) for name, _ in tiny.named_buffers() if not re.search(BUFFERS, name)}
    return "|".join([BUFFERS, *(f"{re.escape(name)}$" for name in sorted(more))])
