"""Whether the models that a study starts from can be what it asks of them, as far as that is known before anything runs:
from the study itself, and from models that are folders here, staged, or in the Hugging Face cache (no torch here).

Each function yields one line per problem: key path, values, what to do.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from colpipe.architectures.families import FAMILIES, variant_of
from colpipe.config.folders import model_folder, read_mapping, rows_problem, tokenizer_entries
from colpipe.config.parts import Select
from colpipe.config.study import Study
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
RANKED: tuple[Select, ...] = ("rank", "rotate")


def tokenizer_problems(study: Study) -> Iterator[str]:
    """Tokenizers of the chain's models that have more entries than `architecture.vocabulary` has rows."""
    names = [study.tokenizer.model] + [origin_of(study, ancestor) for ancestor in study.ancestors]
    names += [member.model for member in study.chain.values()]
    for name in dict.fromkeys(filter(None, names)):
        folder = model_here(study, name)
        try:
            entries = tokenizer_entries(folder) if folder else None
        except ColpipeError as error:
            yield str(error)
            continue
        if entries and (
            line := rows_problem(study.architecture.vocabulary, entries, "architecture.vocabulary", str(folder))
        ):
            yield line


def inheritance_problems(study: Study) -> Iterator[str]:
    """Members, and DesNets that are distilled, that want more of an axis than the model that they start as a subset of has;
    given members of another size."""
    found = [line for ancestor in study.ancestors for line in _of_chain(study, ancestor)]
    yield from dict.fromkeys(found)


def _of_chain(study: Study, ancestor: str) -> Iterator[str]:
    origin = origin_of(study, ancestor)
    known = _sizes(study, origin)
    family = _family(study, origin)
    if family and family != study.architecture.family:
        key = "bridge" if study.ancestors[ancestor].bridge else "model"
        yield (
            f"ancestors.{ancestor}.{key}: {origin} is {family}, architecture.family {study.architecture.family}"
            + ("" if key == "bridge" else "; an ancestor of another family needs a bridge")
        )
        return
    yield from _larger_than_its_ancestor(study, ancestor, origin)
    for member in study.members(ancestor):
        entry, teacher = study.chain[member], study.teacher(ancestor, member)
        ours = study.architecture.sizes(entry.shape)
        if study.start(ancestor, member) == "pretrained":
            theirs = _sizes(study, entry.model)
            for axis in ("layer", *study.architecture.table.widths):
                if theirs.get(axis) and theirs[axis] != ours[axis]:
                    yield f"chain.{member}.shape: {axis} is {ours[axis]}, but {theirs[axis]} in models.{entry.model}"
        elif study.inherits(ancestor, member):
            theirs = study.architecture.sizes(study.chain[teacher].shape) if teacher else known
            yield from _more_than(study, f"chain.{member}.shape", ours, theirs, teacher or f"models.{origin}")
    for name, init, _ in study.builds_of(ancestor):
        initialiser, (_, larger) = study.initialisers[init], study.neighbours(name, ancestor)
        if initialiser.kind == "distilled":
            teacher = study.teacher(ancestor, larger) if initialiser.teacher == "shared" and larger else None
            theirs = study.architecture.sizes(study.chain[teacher].shape) if teacher else known
            ours = study.architecture.sizes(study.desnets[name].shape)
            yield from _more_than(study, f"desnets.{name}.shape", ours, theirs, teacher or f"models.{origin}")


def _larger_than_its_ancestor(study: Study, ancestor: str, origin: str) -> Iterator[str]:
    """A first member that starts as a subset of its ancestor, and yet has more parameters: one whose head is untied. That is
    what a study that rotates an ancestor asks for."""
    if any(entry.select == "rotate" for entry in study.ancestors.values()):
        return
    member = study.members(ancestor)[0]
    most, known = _parameters(study, origin), study.architecture.table.name
    ours = study.parameters(study.chain[member].shape)
    if most and study.inherits(ancestor, member) and ours > most:
        tied = str(study.architecture.is_tied).lower()
        yield (
            f"chain.{member}: has {ours:,} parameters, more than the {most:,} of models.{origin}, of which it starts as a "
            f"subset; give it a smaller shape, or see whether architecture.tied ({tied}, {known}) is as there"
        )


def _more_than(study: Study, where: str, ours: Mapping, theirs: Mapping, source: str) -> Iterator[str]:
    """Why a model cannot be a subset of a source; axes whose size is not known are passed over."""
    for axis in ("vocabulary", "position", "layer", *study.architecture.table.widths):
        if theirs.get(axis) and ours[axis] > theirs[axis]:
            key = {"vocabulary": "architecture.vocabulary", "position": "architecture.positions"}.get(axis, where)
            yield (
                f"{key}: {axis} is {ours[axis]:,}, more than the {theirs[axis]:,} of {source}, whose subset it starts as; "
                f"at most {theirs[axis]:,} is allowed"
            )
    for axis in ("head_dim", "query"):
        if theirs.get(axis) and ours[axis] != theirs[axis]:
            yield (
                f"{where}: {axis} is {ours[axis]}, but {theirs[axis]} in {source}, whose subset it starts as; heads and "
                "groups are taken whole, so they must agree"
            )


def heads_tied_otherwise(study: Study) -> Iterator[str]:
    """A line on each ancestor that is known already and whose head is not as its chain's, of which the study says nothing.
    It is told and not refused: the same study may have run before the ancestor was fetched."""
    ours, family, words = study.architecture.is_tied, study.architecture.family, {True: "tied", False: "untied"}
    inherited = [a for a in study.ancestors if any(study.inherits(a, member) for member in study.members(a))]
    for origin in dict.fromkeys(origin_of(study, ancestor) for ancestor in inherited):
        folder = model_here(study, origin)
        theirs = study.architecture.table.is_tied(read_mapping(folder / "config.json")) if folder else ours
        if study.architecture.tied is None and theirs != ours:
            yield (
                f"architecture.tied: not said, so that heads are {words[ours]}, as {family} has them, but that of "
                f"models.{origin} is {words[theirs]}; tied: {str(theirs).lower()} keeps it, {str(ours).lower()} says that "
                "another is meant"
            )


def ranking_problems(study: Study) -> Iterator[str]:
    """Subsets by importance of members whose layers nothing has ranked, because they start from a model of their own."""
    found: dict[str, None] = {}
    for name, ancestor in study.ancestors.items():
        if ancestor.select in RANKED:
            for user, source in _taken_by_rank(study, name):
                line = (
                    f"ancestors.{name}.select: {ancestor.select!r}, but {user} is cut out of {source}, which starts from a "
                    "model of its own, so that its layers have no ranking; first and even need none"
                )
                found[line] = None
    yield from found


def writing_problems(study: Study) -> Iterator[str]:
    """Documents to be written that are longer than their ancestor can read."""
    for name, corpus in study.corpora.items():
        if not (written := corpus.written):
            continue
        opened = study.corpora[written.openings].dataset
        if opened and study.datasets[opened].test + study.datasets[opened].validation >= 1:
            yield f"corpora.{name}.written.openings: {written.openings} has no training documents (datasets.{opened})"
        model = study.ancestors[written.ancestor].model
        longest, positions = written.opening + written.max_new_tokens, _sizes(study, model).get("position")
        if positions and longest > positions:
            yield (
                f"corpora.{name}.written.max_new_tokens: {written.max_new_tokens} after openings of {written.opening} are "
                f"more than the {positions} positions of models.{model}; at most {positions - written.opening} are allowed"
            )


def _taken_by_rank(study: Study, ancestor: str) -> Iterator[tuple[str, str]]:
    """(what is cut by a ranking, member without one that it is cut out of)."""
    unranked: set[str] = set()
    for member in study.members(ancestor):
        teacher = study.teacher(ancestor, member)
        inherits = study.inherits(ancestor, member)
        if not inherits or teacher in unranked:
            unranked.add(member)
            if study.elastic(ancestor, member):
                yield f"chain.{member}.elastic", member
        if inherits and teacher in unranked:
            yield f"chain.{member}", teacher
    for name, init, _ in study.builds_of(ancestor):
        smaller, larger = study.neighbours(name, ancestor)
        initialiser = study.initialisers[init]
        whole = initialiser.kind == "linit" and (smaller is None or study.fits(init)) and initialiser.method != "cut"
        if larger in unranked and (whole or initialiser.kind == "subset"):
            yield f"desnets.{name} ({init})", larger


def origin_of(study: Study, ancestor: str) -> str:
    """The model that an ancestor's chain descends from: its bridge, where it has one."""
    return study.ancestors[ancestor].bridge or study.ancestors[ancestor].model


def model_here(study: Study, model: str) -> Path | None:
    """Where a model lies already as a folder."""
    source = study.models[model].source
    return model_folder(model, source) if source else None


def _family(study: Study, model: str) -> str | None:
    folder = model_here(study, model)
    return read_mapping(folder / "config.json").get("model_type") if folder else None


def _parameters(study: Study, model: str) -> int | None:
    """Parameters of a model that is known already."""
    if shape := study.models[model].shape:
        return study.parameters(shape)
    if not (sizes := _sizes(study, model)):
        return None
    config = read_mapping(model_here(study, model) / "config.json")
    table = variant_of(FAMILIES[study.architecture.family], config)
    return table.parameters(sizes, table.is_tied(config))


def _sizes(study: Study, model: str) -> dict[str, int]:
    """Size of every axis of a model that is known already; empty where it is not."""
    if shape := study.models[model].shape:
        return study.architecture.sizes(shape)
    folder = model_here(study, model)
    config = read_mapping(folder / "config.json") if folder else {}
    if config.get("model_type") != study.architecture.family:
        return {}
    try:
        return study.architecture.table.require_sizes(config, str(folder))
    except Exception:  # incomplete: the stage that reads it says so
        return {}
