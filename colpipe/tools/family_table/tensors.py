"""The tensors of a guessed table: axes from sizes and gradients, roles from what modules do."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from colpipe.architectures.family import TensorSpec
from colpipe.tools.family_table.attention import blocks, layout, row_parts, row_units
from colpipe.tools.family_table.flow import Flow, Module, is_norm, norm_kind, same
from colpipe.tools.family_table.models import Stock

Shape = tuple[int, ...]
SPLIT = {"qkv": ("q", "k", "v"), "query_key_value": ("query", "key", "value"), "gate_up": ("gate", "up")}


@dataclass
class Tensors:
    """Of a guessed table.

    Attributes:
        table: name → tensor.
        fused: stored name → tensors of the table that it is made of.
        checks: what could not be decided.
    """

    table: dict[str, TensorSpec] = field(default_factory=dict)
    fused: dict[str, list[str]] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)


def tensors_of(
    full: Stock, tiny, flow: Flow, shapes: Mapping[str, Sequence[Shape]], layered: Mapping[str, str], when: Mapping
) -> Tensors:
    """All of a model's tensors.

    Args:
        full: the class, with every tensor there may be; `tiny` is a model of it.
        shapes: parameter of the first layer, or outside of layers → its shape in every probe.
        layered: the same → its name with `{layer}`.
        when: parameter → the key that brings it.
    """
    found = Tensors()
    attention = _attention(full, tiny, flow, shapes, found.checks)
    for name, pattern in layered.items():
        module, _, kind = name.rpartition(".")
        known = flow.modules.get(module)
        if known is None:  # said already of the module
            continue
        own = tiny.get_submodule(module)
        offset = norm_kind(own)[1] if kind == "weight" and is_norm(own) else 0.0
        role = _role(known.role, kind)
        spec = TensorSpec(
            axes="",
            role=cast(Any, role),
            after=f"{known.after}.weight" if known.after and role in ("read", "head") else "",
            into=f"{known.into}.weight" if known.into and role == "write" else "",
            when=when.get(name, ""),
            offset=offset,
        )
        parts = list(_patterns(full, pattern, kind, known, shapes[name], attention.get(module), found.checks))
        if len(parts) > 1 and "ffn" in parts[0]:
            _require_halves(full, tiny, flow, module, shapes, found.checks)
        names = _part_names(pattern, len(parts))
        found.table |= {each: replace(spec, axes=axes) for each, axes in zip(names, parts, strict=True)}
        if len(parts) > 1:
            found.fused[pattern] = names
            if names[0].endswith(f"_0.{kind}"):
                found.checks.append(f"{pattern}: is {len(parts)} tensors one below the other, which need names")
    return found


def _role(role: str, kind: str) -> str:
    """Of a module's weight or bias."""
    if role == "norm":
        return "gain" if kind == "weight" else "shift"
    return "inside" if kind == "bias" and role in ("read", "head") else role


def _queries(full: Stock) -> str:
    return "(group query head_dim)" if "group" in full.keys else "(head head_dim)"


def _candidates(full: Stock) -> dict[str, list[int]]:
    """Einops pattern of one dimension → its size in every probe."""
    grouped = "group" in full.keys
    patterns = ["hidden", "ffn", _queries(full), *(["(group head_dim)"] if grouped else [])]
    patterns += ["head_dim", "vocabulary", "position", *(["(group query)", "group"] if grouped else ["head"])]
    return {
        pattern: [math.prod(sizes[axis] for axis in re.findall(r"\w+", pattern)) for sizes in full.probes()]
        for pattern in patterns
    }


def axes(full: Stock, shapes: Sequence[Shape], dimension: int) -> list[list[str]]:
    """What a dimension may be, by its size in every probe: one pattern, or several of which it is the sum."""
    seen = [shape[dimension] for shape in shapes]
    known = _candidates(full)
    if fits := [[pattern] for pattern, sizes in known.items() if sizes == seen]:
        return fits
    several = [pattern for pattern in known if pattern not in ("hidden", "vocabulary", "position")]
    return [
        list(parts)
        for count in (2, 3)
        for parts in itertools.combinations_with_replacement(several, count)
        if [sum(each) for each in zip(*(known[part] for part in parts), strict=True)] == seen
    ]


def _side(full: Stock, shapes: Mapping, flow: Flow, name: str, output: bool) -> list[list[str]]:
    """What the output or the input of a module of two sides may be, the residual stream apart."""
    index = int(output == flow.modules[name].first)
    return [each for each in axes(full, shapes[f"{name}.weight"], index) if each != ["hidden"]]


def _attention(full: Stock, tiny, flow: Flow, shapes: Mapping, checks: list[str]) -> dict[str, list[str]]:
    """Module of the first layer that computes queries, keys or values → the patterns that its rows are."""
    sizes = full.sizes()
    inside = {name: module for name, module in flow.modules.items() if name.startswith(f"{flow.layers}.0.")}
    by_role = {role: [name for name in inside if inside[name].role == role] for role in ("read", "write", "inside")}
    writers = [name for name in by_role["write"] if [_queries(full)] in _side(full, shapes, flow, name, False)]
    sides = {name: _side(full, shapes, flow, name, True) for name in by_role["read"]}
    readers = [name for name, fits in sides.items() if not all({*each} == {"ffn"} for each in fits)]
    if len(writers) != 1 or not readers:
        checks.append(
            f"{len(readers)} modules read for the attention and {len(writers)} write what its heads put out "
            f"({_queries(full)}): see what each is"
        )
        return {}
    norms = {  # over all heads together
        reader: name
        for reader, name in itertools.product(readers, by_role["inside"])
        if flow.outputs[name].shape == flow.outputs[reader].shape and same(flow.outputs[reader], flow.inputs[name])
    }
    found = {}
    for name, rows in row_parts(tiny, readers, writers[0], sizes["head"], norms).items():
        heads = blocks(rows, sizes["head_dim"])
        if patterns := heads and layout(heads, sizes["head"], sizes["group"], "group" in full.keys):
            found[name] = patterns
        else:
            checks.append(f"{name}: its rows are in an order that no pattern says: {_brief(heads)}")
    return found


def _brief(heads: Sequence | None) -> str:
    if heads is None:
        return "not head after head"
    told = [f"{part} of head {'+'.join(map(str, sorted(own)))}" for part, own in heads]
    return ", ".join(told[:8]) + (", …" if len(told) > 8 else "")


def _patterns(
    full: Stock,
    pattern: str,
    kind: str,
    known: Module,
    shapes: Sequence[Shape],
    attention: list[str] | None,
    checks: list,
) -> Iterator[str]:
    """Axes of a parameter; of each tensor that is stored in it, where it holds several."""
    if known.role == "norm" or (known.role == "write" and kind == "bias"):
        stream: int | None = 0  # the dimension that is hidden
    elif kind == "bias":
        stream = None
    else:
        stream = {"read": 1 - known.first, "write": int(known.first), "head": 1, "embed": 1}.get(known.role)
    chosen: list[list[str]] = []
    for index in range(len(shapes[0])):
        fits = axes(full, shapes, index)
        others = [each for each in fits if each != ["hidden"]]
        if index == stream and ["hidden"] in fits:
            chosen.append(["hidden"])
        elif attention and known.role == "read":
            chosen.append(attention)
        elif others and index != stream:
            chosen.append(others[0])
            if len(others) > 1:
                checks.append(f"{pattern}: may be {' or '.join(' + '.join(each) for each in others)}")
        else:
            chosen.append(["?"])
            checks.append(f"{pattern}: no axes give dimension {index} of {shapes[0]}")
    count = max(map(len, chosen), default=1)
    if count > 1 and len(chosen[0]) != count:
        checks.append(f"{pattern}: holds tensors side by side; `fused` takes them one below the other")
    for index in range(count):
        yield " ".join(each[index] if len(each) > 1 else each[0] for each in chosen)


def _require_halves(full: Stock, tiny, flow: Flow, module: str, shapes: Mapping, checks: list[str]) -> None:
    """See that the parts of a feed-forward reader lie one below the other."""
    writers = [name for name, each in flow.modules.items() if each.role == "write"]
    writer = next((name for name in writers if ["ffn"] in _side(full, shapes, flow, name, False)), None)
    units = writer and row_units(tiny, module, writer)
    if units != [{unit, unit + full.sizes()["ffn"]} for unit in range(2)]:
        checks.append(f"{module}: its parts are not one below the other: its first units are rows {units or 'unknown'}")


def _part_names(pattern: str, count: int) -> list[str]:
    """Names of the tensors that are stored in one: `gate_up_proj` holds `gate_proj` and `up_proj`."""
    if count == 1:
        return [pattern]
    module, _, kind = pattern.rpartition(".")
    before, _, last = module.rpartition(".")
    for whole, parts in SPLIT.items():
        if whole in last and len(parts) == count:
            return [f"{before}.{last.replace(whole, part)}.{kind}" for part in parts]
    return [f"{module}_{index}.{kind}" for index in range(count)]
