"""A family's table, guessed from tiny models of it: each with one axis of another size, or one switch set otherwise."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from colpipe.architectures.family import Family, TensorSpec
from colpipe.architectures.settable import FIXED
from colpipe.errors import first_line
from colpipe.learngene.stored import stored_tensors
from colpipe.tools.family_table import keys
from colpipe.tools.family_table.flow import Flow, flow_of, norm_kind, same
from colpipe.tools.family_table.models import Stock, quiet, stock
from colpipe.tools.family_table.tensors import tensors_of

FACTORS = re.compile(r"multiplier|scal(e|ing|ar)|softcap")


@dataclass
class Guess:
    """What was found out.

    Attributes:
        family: the table.
        settable: what a study may set, for `SETTABLE`.
        checks: what could not be decided, or is not for a table to say, a line each.
    """

    family: Family
    settable: Mapping[str, Any]
    checks: list[str]


def guess(model: str, said: Mapping[str, Any] | None = None) -> Guess:
    """The table of a model folder's class, or of a model type; `said`: keys of all its configurations.

    Raises:
        ColpipeError: as in `stock` and `flow_of`.
    """
    with quiet():
        return _guess(model, said or {})


def _guess(model: str, said: Mapping[str, Any]) -> Guess:
    found = stock(model, said)
    switches, checks = _switches(found, said)
    full = replace(found, said={**found.said, **dict.fromkeys(switches, True)})  # every tensor there may be
    sizes = full.sizes()
    tiny = full.model(sizes)
    flow = flow_of(tiny, sizes["layer"])
    layered = _layered(tiny, flow)
    names = _stored_names(tiny, layered)
    probes = [full.shapes(each) for each in full.probes()]
    checks += _sized_otherwise(full, probes, layered)
    shapes = {name: [probe[name] for probe in probes if name in probe] for name in layered}
    tensors = tensors_of(
        full, tiny, flow, shapes, layered, {name: key for key, more in switches.items() for name in more}
    )
    checks += tensors.checks + flow.checks + _factors(full, flow)
    table = {names.get(name, name): _renamed(tensor, names) for name, tensor in tensors.table.items()}
    heads = [name for name, tensor in table.items() if tensor.role == "head"]
    table |= {name: table.pop(name) for name in heads}  # the last one
    norms = [tiny.get_submodule(name) for name, module in flow.modules.items() if module.role == "norm"]
    kinds = sorted({norm_kind(module)[0] or "none that is known" for module in norms})
    family = Family(
        name=full.name,
        keys=full.keys,
        tensors=table,
        defaults=keys.defaults(full, type(tiny).__name__),
        usual=keys.usual(full, switches),
        norm=cast(Any, kinds[0] if kinds else "rms"),
        aliases=keys.aliases(full),
        fused={
            names.get(name, name): [names.get(part, part) for part in parts] for name, parts in tensors.fused.items()
        },
        per_layer=keys.per_layer(full),
        scaled_embedding=_is_root(full, flow),
        whole_heads=keys.wants_whole_heads(full),
        renamed=keys.other_names(tiny, names),
        buffers=keys.buffers(tiny),
    )
    checks += _table_checks(family, kinds, full)
    return Guess(family, keys.settable(full), list(dict.fromkeys(checks)))


def _table_checks(family: Family, kinds: list[str], full: Stock) -> list[str]:
    """What the rest of colpipe wants of a table."""
    checks = []
    if len(kinds) != 1:
        checks.append(f"norms over the stream are of {len(kinds)} kinds: {', '.join(kinds) or 'there are none'}")
    if not any("norm_eps" in key for key in family.defaults):
        checks.append("no key has norm_eps in it, by which Family.epsilon finds the epsilon of the norms")
    if "head_dim" in full.keys and not full.own_width:
        checks.append("head_dim is a key, but a model runs only where heads × head_dim is hidden")
    if not [tensor for tensor in family.tensors.values() if tensor.role == "head"]:
        checks.append("no head was found")
    for name, tensor in family.tensors.items():
        if tensor.role == "inside" and "vocabulary" in tensor.names:
            checks.append(f"{name}: a bias of the head, which no other family has: see what reads it")
    return checks


def _switches(found: Stock, said: Mapping) -> tuple[dict[str, list[str]], list[str]]:
    """Key that switches biases on → the parameters that it brings; and what else changes which parameters there are."""
    sizes, switches, checks = found.sizes(), {}, []
    for key, value in found.usual.items():
        if type(value) is not bool or key in {*FIXED, *said}:
            continue
        try:
            shapes = {each: found.shapes(sizes, **{key: each}) for each in (True, False)}
        except Exception as error:
            checks.append(f"{key}: {str(not value).lower()} gives no model: {first_line(error)}")
            continue
        more, fewer = (sorted(set(shapes[one]) - set(shapes[not one])) for one in (True, False))
        if more and not fewer and key.endswith("_bias"):
            switches[key] = more
        elif shapes[True] != shapes[False]:
            changed = ", ".join(sorted({re.sub(r"\.\d+\.", ".*.", name) for name in more + fewer})) or "their shapes"
            checks.append(
                f"{key}: true or false changes which tensors there are ({changed}); this is a table for "
                f"{str(found.said.get(key, value)).lower()}, and `when` takes only keys that end in _bias"
            )
    return switches, checks


def _layered(tiny, flow: Flow) -> dict[str, str]:
    """Parameter of the first layer, or of none → its name with `{layer}`."""
    first = f"{flow.layers}.0."
    return {
        name: name.replace(first, f"{flow.layers}.{{layer}}.", 1)
        for name, _ in tiny.named_parameters()
        if name.startswith(first) or not name.startswith(f"{flow.layers}.")
    }


def _stored_names(tiny, layered: Mapping[str, str]) -> dict[str, str]:
    """Name in the loaded model, with `{layer}` → the one that is stored, where it is another."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.save_pretrained(folder)
        stored = {name: place.map().clone() for name, place in stored_tensors(Path(folder)).items()}
    names = {}
    for name, parameter in tiny.named_parameters():
        if name in layered and name not in stored:
            own = next((each for each in stored if same(stored[each], parameter.detach())), name)
            pattern = layered[name]
            names[pattern] = re.sub(r"\.0\.", ".{layer}.", own, count=1) if "{layer}" in pattern else own
    return names


def _sized_otherwise(full: Stock, probes: list[dict], layered: Mapping[str, str]) -> list[str]:
    """Tensors that are not the same in every layer or at every size, and keys that are sizes, but no axis."""
    checks = []
    for name, pattern in layered.items():
        if any(name not in probe for probe in probes):
            checks.append(f"{pattern}: is there at some sizes only")
        elif {shape for probe in probes[:1] for each, shape in probe.items() if _is(each, pattern)} != {
            probes[0][name]
        }:
            checks.append(f"{pattern}: has other shapes in other layers")
    deepest = max(probes, key=len)
    alone = sorted({name for name in deepest if not any(_is(name, pattern) for pattern in layered.values())})
    checks += [f"{name}: is in some layers only" for name in alone]
    for key, value in full.usual.items():
        if type(value) is not int or value < 1 or key in {*FIXED, *full.keys.values()}:
            continue
        try:
            changes = full.shapes(full.sizes(), **{key: value + 1}) != probes[0]
        except Exception:  # a size that does not fit the others; it counts all the same
            changes = True
        if changes:
            checks.append(f"{key}: is a size of tensors, and no axis")
    return checks


def _is(name: str, pattern: str) -> bool:
    before, _, after = pattern.partition("{layer}")
    return name == pattern or (
        bool(after) and re.fullmatch(rf"{re.escape(before)}\d+{re.escape(after)}", name) is not None
    )


def _renamed(tensor: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    return replace(tensor, after=names.get(tensor.after, tensor.after), into=names.get(tensor.into, tensor.into))


def _factors(full: Stock, flow: Flow) -> list[str]:
    """What the model multiplies by that a table does not say."""
    sizes = full.sizes(layer=5, **({"hidden": 360} if full.own_width else {"head": 12, "group": 6}))
    other, checks = flow_of(full.model(sizes), sizes["layer"]), []
    now, then = (
        {module.factor for module in each.modules.values() if module.role == "write"} for each in (flow, other)
    )
    if now != then:
        checks.append(f"what blocks write is multiplied by {_list(now)}, at another size by {_list(then)}")
    elif now != {1.0} and "residual_multiplier" not in full.usual:
        checks.append(f"what blocks write is multiplied by {_list(now)}: Family.write_factor knows residual_multiplier")
    if not _is_root(full, flow) and abs(flow.embedding / other.embedding - 1) > 0.01:
        checks.append(f"embeddings are multiplied by {flow.embedding:.4g}, at another size by {other.embedding:.4g}")
    if flow.parallel and "use_parallel_residual" not in full.usual:
        checks.append(
            "attention and feed-forward part read the same stream; is_parallel in colpipe/learngene/streams.py knows only "
            "the key use_parallel_residual, so that a fit would take the wrong one"
        )
    for key, value in full.usual.items():
        if FACTORS.search(key) and type(value) in (int, float) and value not in (0, 1):
            checks.append(f"{key} is {value}: a factor, or a cap; see whether another width or depth wants another")
    return checks


def _list(numbers: set[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in sorted(numbers))


def _is_root(full: Stock, flow: Flow) -> bool:
    """Whether embeddings are multiplied by the root of the width."""
    return abs(flow.embedding / full.sizes()["hidden"] ** 0.5 - 1) < 0.01
