"""What a study leaves out and has no fixed default: its preset, its ancestor or its other parts say it (no torch here).

It works on the mapping as it is written, where a key that is left out differs from one that is `null`, and before anything
is checked: whatever is of a wrong kind is passed over here and refused later.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from colpipe.architectures.families import FAMILIES, variant_of
from colpipe.config.constants import COMPLETION_OBJECTIVES
from colpipe.config.folders import model_folder, read_mapping
from colpipe.config.parts import Source, parse_tokens
from colpipe.config.presets import with_preset
from colpipe.config.stages import Fit
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
OF_ANCESTOR = ("family", "vocabulary", "positions", "tied")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same study with all of this written out; the given mapping stays as it is.

    Raises:
        ColpipeError: the architecture is left to an ancestor whose `config.json` is not here yet, or has no family that is
            known.
    """
    found = with_preset(_with_stages(config))
    _tokenizer(found)
    _architecture(found)
    _starts(found)
    _initialisers(found)
    _stages(found)
    _written(found)
    _data(found)
    return found


def _with_stages(config: Mapping[str, Any]) -> dict[str, Any]:
    """With a block for every stage that something needs."""
    stages, budgets = _part(config, "stages"), config.get("budgets")
    if _part(config, "instructions"):
        stages.setdefault("sft", {})
    if isinstance(budgets, list) and any(parse_tokens(tokens) for tokens in budgets):
        stages.setdefault("recover", {})
    stages.setdefault("distill", {})
    found = dict(config)
    _put(found, stages=stages)
    return found


def _part(config: Mapping, *path: str) -> dict:
    """A mapping inside a config; empty where there is none."""
    part: Any = config
    for key in path:
        part = part.get(key) if isinstance(part, Mapping) else None
    return dict(part) if isinstance(part, Mapping) else {}


def _first(section: Mapping) -> str | None:
    return next((str(name) for name in section), None)


def _origin(config: Mapping) -> str | None:
    """The model that the first chain descends from."""
    ancestor = _part(config, "ancestors", _first(_part(config, "ancestors")) or "")
    origin = ancestor.get("bridge") or ancestor.get("model")
    return origin if isinstance(origin, str) else None


def _tokenizer(config: dict) -> None:
    """Of the model that the chain descends from, where that brings one."""
    origin = _origin(config)
    if "tokenizer" not in config and origin and "source" in _part(config, "models", origin):
        config["tokenizer"] = {"model": origin}


def _architecture(config: dict) -> None:
    """As the model that the chain descends from has it, where that is fetched and not made here. Beside a family that is
    given, the head is as that family has it, so that a study is the same before and after its ancestor is fetched."""
    given, origin = _part(config, "architecture"), _origin(config)
    missing = [key for key in OF_ANCESTOR if key not in given and not (key == "tied" and "family" in given)]
    try:
        source = Source.model_validate(_part(config, "models", origin or "").get("source"))
    except ValidationError:
        return  # made here, or refused later
    if not missing or not isinstance(config.get("architecture", {}), Mapping):
        return
    folder = model_folder(str(origin), source)
    if folder is None:
        raise ColpipeError(
            f"architecture: {', '.join(missing)} missing, and models.{origin} is not on this machine yet, so that its "
            f"config.json cannot say; give family, vocabulary and positions (and tied, where it is not as in the family)"
        )
    config["architecture"] = given | {key: value for key, value in read_architecture(folder).items() if key in missing}


def read_architecture(folder: Path) -> dict[str, Any]:
    """Family, vocabulary, positions and whether the head is tied, of a model's folder.

    Raises:
        ColpipeError: its `config.json` does not say, or its family has no table.
    """
    path = folder / "config.json"
    content = read_mapping(path)
    family = FAMILIES.get(str(content.get("model_type")))
    if family is None:
        raise ColpipeError(
            f"{path}: model_type {content.get('model_type')!r} is none of {', '.join(FAMILIES)}; a chain of another family "
            "than its ancestor's needs an architecture of its own and a bridge"
        )
    sizes = variant_of(family, content).require_sizes(content, str(folder))
    return {
        "family": family.name,
        "vocabulary": sizes["vocabulary"],
        "positions": sizes["position"],
        "tied": family.is_tied(content),
    }


def _starts(config: dict) -> None:
    """Members start as fitted subsets of their teachers, or from the model that they name. What a subset keeps is measured,
    but where a member starts from a model of its own, whose layers nothing has ranked. Principal components are more than
    the most important channels, and are for heads that are not tied. Without a corpus nothing can be fitted or measured."""
    chain, ancestors, text = _part(config, "chain"), _part(config, "ancestors"), bool(_part(config, "corpora"))
    architecture = _part(config, "architecture")
    family = FAMILIES.get(str(architecture.get("family", "gpt2")))
    tied = family.tied if family and architecture.get("tied") is None else architecture.get("tied")
    measured = "rotate" if family and not family.rotation_problem and not tied else "rank"
    for name, member in chain.items():
        if isinstance(member, Mapping) and "start" not in member:
            chain[name] = {**member, "start": "pretrained" if member.get("model") else "fit" if text else "inherit"}
    for name, ancestor in ancestors.items():
        if isinstance(ancestor, Mapping) and "select" not in ancestor:
            ranked = text and _starts_in(ancestor, chain) <= {"fit", "inherit"}
            ancestors[name] = {**ancestor, "select": measured if ranked else "even"}
    _put(config, chain=chain, ancestors=ancestors)


def _starts_in(ancestor: Mapping, chain: Mapping) -> set[str]:
    """How the members of an ancestor's chain start."""
    own = ancestor.get("members")
    members = [each for each in chain if not isinstance(own, list) or each in own]
    return {str(ancestor.get("start") or _part(chain, member).get("start")) for member in members}


def _initialisers(config: dict) -> None:
    """DesNets are fitted cuts of their larger neighbours, unless the study says how they are made: nested where they mix, or
    where there is no corpus to fit them on."""
    initialisers = _part(config, "initialisers")
    usual = "fit" if _part(config, "corpora") else "nested"
    if "initialisers" not in config and _part(config, "desnets"):
        method = "paper" if config.get("preset") == "paper" else usual
        initialisers = {"fit" if method == "fit" else "linit": {"kind": "linit", "method": method}}
    for name, initialiser in initialisers.items():
        if isinstance(initialiser, Mapping) and "method" not in initialiser:
            method = "nested" if {"alpha", "compensate"} & set(initialiser) else usual
            initialisers[name] = {**initialiser, "method": method if initialiser.get("kind") == "linit" else "paper"}
    _put(config, initialisers=initialisers)


def _stages(config: dict) -> None:
    """They read the first corpus, or the first instructions."""
    stages, corpora, instructions = (_part(config, section) for section in ("stages", "corpora", "instructions"))
    if any(_part(each).get("select") in ("rank", "rotate") for each in _part(config, "ancestors").values()):
        stages.setdefault("order", {})
    chain, ancestors = _part(config, "chain"), _part(config, "ancestors")
    made = [start for name in ancestors for start in _starts_in(_part(ancestors, name), chain)]
    made += [_part(each).get("method") for each in _part(config, "initialisers").values()]
    if "fit" in made:
        stages.setdefault("fit", {})
    positions = _part(config, "architecture").get("positions")
    if type(positions) is int and isinstance(stages.get("fit"), Mapping):
        stages["fit"] = {"max_length": min(Fit().max_length, positions), **stages["fit"]}
    for stages_of, key, first in (
        (("pretrain", "recover", "order", "fit"), "corpus", _first(corpora)),
        (("sft", "answers"), "instructions", _first(instructions)),
    ):
        for stage in stages_of:
            if first and isinstance(stages.get(stage), Mapping):
                stages[stage] = {key: first, **stages[stage]}
    _put(config, stages=stages)


def _written(config: dict) -> None:
    """Text is written by the first ancestor."""
    corpora, ancestor = _part(config, "corpora"), _first(_part(config, "ancestors"))
    for name, corpus in corpora.items():
        if ancestor and isinstance(corpus, Mapping) and isinstance(corpus.get("written"), Mapping):
            corpora[name] = {**corpus, "written": {"ancestor": ancestor, **corpus["written"]}}
    _put(config, corpora=corpora)


def _data(config: dict) -> None:
    """What is distilled on, by the objective, where nothing says it; whoever has another objective has its data, too."""
    corpora, instructions, stages = (_part(config, section) for section in ("corpora", "instructions", "stages"))
    mixed = {name for corpus in corpora.values() for name in _part(_part(corpus), "data")}
    corpora = {name: corpus for name, corpus in corpora.items() if name not in mixed}

    def with_data(settings: Mapping) -> dict:
        asks = settings.get("objective") in COMPLETION_OBJECTIVES
        return {"data": [*instructions, *corpora] if asks else list(corpora or instructions), **settings}

    if not isinstance(stages.get("distill"), Mapping) or "data" in stages["distill"]:
        return
    ancestors = _part(config, "ancestors")
    said = any("data" in _part(ancestors, name, "distill") for name in ancestors)
    for section in ("ancestors",) if said else ("ancestors", "chain", "initialisers"):
        entries = _part(config, section)
        for name in entries:
            if "objective" in (own := _part(entries, name, "distill")):
                entries[name] = {**entries[name], "distill": with_data(own)}
        _put(config, **{section: entries})
    _put(config, stages={**stages, "distill": with_data(stages["distill"])})


def _put(config: dict, **parts: dict) -> None:
    """Parts in their places, where nothing of another kind is given."""
    for key, part in parts.items():
        if part and isinstance(config.get(key, {}), Mapping):
            config[key] = part
