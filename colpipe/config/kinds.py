"""Layers that differ in kind (Gemma 3's windows, SmolLM3's layers without rotary positions): whether those that a study
mixes are of one kind, and whether llama.cpp takes what it makes, as far as that is known before anything runs (no torch
here).

Which layers a ranking keeps is not known before: then nothing is promised, and mixing by number is refused.
"""

from collections.abc import Iterator, Mapping, Sequence

from colpipe.architectures.family import Family
from colpipe.architectures.layers import (
    WITHOUT_ROPE,
    evenly_spaced,
    expand,
    keep_layers,
    rotary_in_llama_cpp,
    subset,
    window_period,
)
from colpipe.config.folders import read_mapping
from colpipe.config.parts import Select
from colpipe.config.starts import model_here, origin_of
from colpipe.config.study import Study

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
Kinds = Sequence[tuple]  # for each layer, the values that config.json has for it, in the order of `Family.per_layer`
SPECIAL = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # of which transformers would warn
ALIKE: Kinds = [()]  # layers of a model of whatever depth that says nothing of any one of them
DIFFERING = ("gemma3_text", "smollm3")  # families of which models as they are published have layers of several kinds


def kind_problems(study: Study) -> Iterator[str]:
    """Initialisers that would mix layers of different kinds, a line each."""
    found: dict[str, str] = {}
    for ancestor in study.ancestors:
        builds = {(name, init): None for name, init, _ in study.builds_of(ancestor) if study.mixes(init)}
        kinds = _of_members(study, ancestor) if builds else {}
        for name, init in builds:
            if init not in found and (problem := _mixed_problem(study, ancestor, name, init, kinds)):
                found[init] = f"initialisers.{init}.method: {problem}"
    yield from found.values()


def _mixed_problem(
    study: Study, ancestor: str, desnet: str, init: str, kinds: Mapping[str, Kinds | None]
) -> str | None:
    smaller, larger = study.neighbours(desnet, ancestor)
    method, depth = study.initialisers[init].method, study.desnets[desnet].shape.layers
    if smaller is None or larger is None:
        return None
    own = study.inherits(ancestor, smaller) and study.teacher(ancestor, smaller) == larger
    if method != "paper" and own:  # each with the layer that it came from
        return None
    keys = " and ".join(study.architecture.table.per_layer)
    advice = f"give {'nested, which mixes a layer with the one that it came from, or ' if own else ''}fit"
    small, large = kinds[smaller], kinds[larger]
    if small is None or large is None:
        unknown = smaller if small is None else larger
        return (
            f"{method!r} mixes layers of {smaller} and {larger} by their numbers (desnets.{desnet}), and layers of "
            f"{study.architecture.family} differ in kind ({keys}): which of them {unknown} keeps is not known before it is "
            f"made; {advice}"
        )
    if method == "paper":
        pairs = list(zip(expand(len(small), depth), subset(len(large), depth), strict=False))
    else:
        pairs = list(enumerate(evenly_spaced(len(large), len(small)))) if depth >= len(small) else []
    for one, other in pairs:
        if small[one] and large[other] and small[one] != large[other]:
            return (
                f"{method!r} mixes layer {one} of {smaller} with layer {other} of {larger} (desnets.{desnet}), which are "
                f"{_said(small[one])} and {_said(large[other])} ({keys}); {advice}"
            )
    return None


def _said(values: tuple) -> str:
    return ", ".join(map(str, values))


def export_remarks(study: Study) -> Iterator[str]:
    """DesNets of a study with settings for GGUF files that llama.cpp has no key for, or that may be such, a line each."""
    if study.architecture.family not in DIFFERING or "export" not in study.stages.model_fields_set:
        return
    table = study.architecture.table
    limit = {
        "gemma3_text": "sliding windows in all layers but the last of every so many (layer_types)",
        "smollm3": f"no rotary positions in every {WITHOUT_ROPE}th layer and in no other (no_rope_layers)",
    }[table.name]
    for ancestor in study.ancestors:
        members = _of_members(study, ancestor)
        for name, init in {(name, init): None for name, init, _ in study.builds_of(ancestor)}:
            kinds = _of_desnet(study, ancestor, name, init, members)
            if kinds is not None and _exportable(table, kinds):
                continue
            what = (
                "has no GGUF file"
                if kinds is not None
                else "may have no GGUF file: which layers it has is not known before it is made"
            )
            yield f"stages.export: desnets.{name} ({init}) {what}; of {table.name}, llama.cpp has {limit} alone"


def _exportable(table: Family, kinds: Kinds) -> bool:
    """Whether llama.cpp computes layers of these kinds, as `colpipe.export.settings` has it."""
    if not all(kinds):
        return True
    columns = dict(zip(table.per_layer, zip(*kinds, strict=True), strict=True))
    if table.name == "smollm3":
        return list(columns["no_rope_layers"]) == rotary_in_llama_cpp(len(kinds))
    return window_period(columns["layer_types"]) not in (None, 1)


def _of_desnet(
    study: Study, ancestor: str, desnet: str, init: str, members: Mapping[str, Kinds | None]
) -> Kinds | None:
    """Kinds of a DesNet's layers, all of which its config.json has of the model that it is made of."""
    initialiser, depth = study.initialisers[init], study.desnets[desnet].shape.layers
    smaller, larger = study.neighbours(desnet, ancestor)
    match initialiser.kind:
        case "rand":
            return _from_scratch(study, depth)
        case "single" | "hypercloning":
            single = initialiser.kind == "single"
            kinds = members.get((smaller if single else study.hypercloning_source(desnet, ancestor)) or "")
            return [kinds[layer] for layer in expand(len(kinds), depth)] if kinds else None
        case "linit" | "subset" if larger:
            kinds = members[larger]
            if smaller is None or not study.mixes(init):
                return _taken(kinds, depth, _select(study, ancestor, larger))
            return _taken(kinds, depth, "first" if initialiser.method == "paper" else "rank")
    return None


def _of_members(study: Study, ancestor: str) -> dict[str, Kinds | None]:
    """Member → kinds of its layers; None where they differ and it is not known which it keeps."""
    origin, found = _of_model(study, origin_of(study, ancestor)), {}
    for member in study.members(ancestor):
        entry, teacher = study.chain[member], study.teacher(ancestor, member)
        depth = entry.shape.layers
        if study.start(ancestor, member) == "pretrained":
            found[member] = _taken(_of_model(study, entry.model), depth, "first")
        elif study.inherits(ancestor, member):
            found[member] = _taken(found[teacher] if teacher else origin, depth, _select(study, ancestor, teacher))
        else:
            found[member] = _from_scratch(study, depth)
    return found


def _select(study: Study, ancestor: str, source: str | None) -> Select:
    """How layers of a member, or of the ancestor, are chosen; an elastic one ranks them in any case."""
    return "rank" if source and study.elastic(ancestor, source) else study.ancestors[ancestor].select


def _taken(kinds: Kinds | None, depth: int, select: Select) -> Kinds | None:
    """Kinds of a subset's layers; None where they are chosen by what is not known yet."""
    if kinds is None or len(set(kinds)) == 1:
        return kinds and [kinds[0]] * depth
    if depth == len(kinds):
        return kinds
    return [kinds[layer] for layer in keep_layers(select, len(kinds), depth)] if select in ("first", "even") else None


def _from_scratch(study: Study, depth: int) -> Kinds | None:
    table = study.architecture.table
    kinds = _complete(table, {**table.defaults, **study.architecture.config, table.keys["layer"]: depth})
    return _taken(kinds, depth, "first")


def _of_model(study: Study, model: str) -> Kinds | None:
    """Of a model that is made from scratch or a folder here; otherwise of one as they are published, if all are alike."""
    entry, table = study.models[model], study.architecture.table
    if entry.shape:
        return _from_scratch(study, entry.shape.layers)
    config = read_mapping(folder / "config.json") if (folder := model_here(study, model)) else {}
    if config.get("model_type") == table.name:
        return _complete(table, config)
    return None if table.name in DIFFERING else ALIKE


def _complete(table: Family, config: Mapping) -> Kinds | None:
    """What a `config.json` mapping says layer by layer, as transformers completes it; None where it cannot."""
    if not any(config.get(key) for key in (*table.per_layer, "use_sliding_window")) and table.name not in DIFFERING:
        return ALIKE
    from transformers import CONFIG_MAPPING  # seconds, spared families whose layers are alike

    try:
        complete = CONFIG_MAPPING[table.name].from_dict({**config, **SPECIAL}).to_dict()
        return list(zip(*(complete[key] for key in table.per_layer), strict=True))
    except Exception:  # incomplete: the stage that reads it says so
        return None if table.name in DIFFERING else ALIKE
