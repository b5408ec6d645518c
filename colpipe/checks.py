"""What makes a study refused, and why: cross-checks between its parts (no torch here).

Each function yields one line per problem: key path, value, what is allowed.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import ValidationError

from colpipe import exhibits
from colpipe.errors import ColpipeError
from colpipe.settings import tokens_label
from colpipe.sizing import Endpoint, plan_shape
from colpipe.stage_settings import Distill, Elastic

if TYPE_CHECKING:
    from colpipe.study import Study

SCRATCH = "scratch"  # stands where an ancestor's name would: random DesNets inherit from nobody


def plan_sizes(study: "Study") -> Iterator[str]:
    """Give DesNets that are described by a budget their shapes; yields those that have none."""
    for name, desnet in study.desnets.items():
        if desnet.shape is not None:
            continue
        neighbours = study.around(desnet.parameters)
        if None in neighbours:
            sizes = ", ".join(f"{member} {study.parameters(entry.shape):,}" for member, entry in study.chain.items())
            yield f"desnets.{name}: {desnet.parameters:,} parameters lie outside the chain ({sizes}); give a shape"
            continue
        ends = [Endpoint(member, study.chain[member].shape) for member in neighbours]
        try:
            planned = plan_shape(study.architecture, *ends, desnet.parameters)
        except ColpipeError as error:
            yield f"desnets.{name}: {error}"
        else:
            desnet.shape, desnet.params, desnet.memory = planned, None, None


def unknown_names(study: "Study") -> Iterator[str]:
    """References to models, data sets, corpora and instructions that the study does not have."""

    def check(where: str, name: str | None, section: str) -> Iterator[str]:
        known = getattr(study, section)
        if name is not None and name not in known:
            yield f"{where}: {name!r} is not in {section} ({', '.join(known) or 'which is empty'})"

    yield from check("tokenizer.train", study.tokenizer.train, "corpora")
    yield from check("tokenizer.model", study.tokenizer.model, "models")
    for section in ("corpora", "instructions"):
        for name, entry in getattr(study, section).items():
            yield from check(f"{section}.{name}.dataset", entry.dataset, "datasets")
    for name, ancestor in study.ancestors.items():
        yield from check(f"ancestors.{name}.model", ancestor.model, "models")
        yield from check(f"ancestors.{name}.bridge", ancestor.bridge, "models")
        yield from _override_problems(study, "ancestors", name)
        for key, section in (("members", "chain"), *((same, same) for same in ("desnets", "initialisers", "tasks"))):
            for number, entry in enumerate(getattr(ancestor, key) or []):
                yield from check(f"ancestors.{name}.{key}.{number}", entry, section)
        if ancestor.members == []:
            yield f"ancestors.{name}.members: [] leaves no chain; name one member, or leave it out"
    for name, member in study.chain.items():
        yield from check(f"chain.{name}.model", member.model, "models")
        if name in study.models:
            yield f"chain.{name}: a model has this name too; members and models need different names"
        yield from _override_problems(study, "chain", name)
    for section in ("ancestors", "desnets", "initialisers"):
        for name, entry in getattr(study, section).items():
            for number, tokens in enumerate(entry.budgets or []):
                if tokens not in study.budgets:
                    known = ", ".join(map(str, study.budgets))
                    yield f"{section}.{name}.budgets.{number}: {tokens} is not in budgets ({known})"
    for name, desnet in study.desnets.items():
        for number, initialiser in enumerate(desnet.initialisers or []):
            yield from check(f"desnets.{name}.initialisers.{number}", initialiser, "initialisers")
    for name, initialiser in study.initialisers.items():
        yield from _override_problems(study, "initialisers", name)
        if initialiser.distill and initialiser.kind != "distilled":
            yield f"initialisers.{name}.distill: goes with kind 'distilled' only, this is {initialiser.kind!r}"
        for number, task in enumerate(initialiser.tasks or []):
            yield from check(f"initialisers.{name}.tasks.{number}", task, "tasks")
    for name, task in study.tasks.items():
        yield from check(f"tasks.{name}.instructions", task.instructions, "instructions")
        yield from check(f"tasks.{name}.train", task.train, "instructions")
    for name, stack in study.stacks.items():
        yield from check(f"stacks.{name}.ancestor", stack.ancestor, "ancestors")
        yield from check(f"stacks.{name}.member", stack.member, "chain")
        for number, task in enumerate(stack.tasks):
            yield from check(f"stacks.{name}.tasks.{number}", task, "tasks")
        if stack.ancestor in study.ancestors and stack.member not in study.members(stack.ancestor):
            yield f"stacks.{name}.member: {stack.member!r} is no member of {stack.ancestor}'s chain"
        if name in study.initialisers:
            yield f"stacks.{name}: an initialiser has this name too; they need different names"
    for number, name in enumerate(study.perplexity):
        yield from check(f"perplexity.{number}", name, "corpora")
    stages = study.stages
    for stage in ("pretrain", "recover", "order"):
        if settings := getattr(stages, stage):
            yield from check(f"stages.{stage}.corpus", settings.corpus, "corpora")
    for stage in ("sft", "answers"):
        if settings := getattr(stages, stage):
            yield from check(f"stages.{stage}.instructions", settings.instructions, "instructions")
    overrides = {f"ancestors.{name}.distill": ancestor.distill for name, ancestor in study.ancestors.items()}
    overrides |= {f"chain.{name}.distill": member.distill for name, member in study.chain.items()}
    overrides |= {f"initialisers.{name}.distill": init.distill for name, init in study.initialisers.items()}
    places = {"stages.distill": stages.distill.data} | {
        path: given.get("data", []) for path, given in overrides.items()
    }
    for path, data in places.items():
        for number, name in enumerate(data):
            if name not in study.corpora and name not in study.instructions:
                known = ", ".join([*study.corpora, *study.instructions])
                yield f"{path}.data.{number}: {name!r} is in neither corpora nor instructions ({known})"
    for name in set(study.corpora) & set(study.instructions):
        yield f"corpora.{name}: instructions has this name too; they need different names"
    own = {*study.ancestors, *study.chain, *study.desnets, *study.initialisers, *study.stacks, *study.tasks}
    own |= {tokens_label(tokens) for tokens in study.budgets}
    shown = exhibits.names() if study.paper else ()
    for name, stand_in in study.paper.items():
        if name not in shown:
            yield f"paper.{name}: not a name of the paper's tables (colpipe/reporting/paper.yaml has {', '.join(shown)})"
        if stand_in not in own:
            yield f"paper.{name}: {stand_in!r} is no ancestor, member, DesNet, initialiser, budget or task of the study"
    if SCRATCH in study.ancestors:
        yield f"ancestors.{SCRATCH}: the name is taken: random DesNets are kept under it"


def missing_stages(study: "Study") -> Iterator[str]:
    """Stages that something in the study needs and that have no settings."""
    scratch = [f"models.{n}" for n, model in study.models.items() if model.shape]
    scratch += [f"chain.{n}" for n, member in study.chain.items() if member.start == "scratch"]
    scratch += [f"ancestors.{n}" for n, ancestor in study.ancestors.items() if ancestor.start == "scratch"]
    needs = {
        "pretrain": scratch,
        "sft": [f"ancestors.{n}" for n in study.ancestors],
        "answers": [f"ancestors.{n}.bridge" for n, ancestor in study.ancestors.items() if ancestor.bridge],
        "order": [f"ancestors.{n}.select" for n, a in study.ancestors.items() if a.select in ("rank", "rotate")],
        "recover": [f"budgets ({tokens})" for tokens in study.budgets if tokens],
    }
    for stage, users in needs.items():
        if users and getattr(study.stages, stage) is None:
            yield f"stages.{stage}: missing, but {users[0]} needs it"


def shape_problems(study: "Study") -> Iterator[str]:
    """Shapes that the family has no model of, and orders that it has not."""
    shapes = {f"models.{name}.shape": model.shape for name, model in study.models.items()}
    shapes |= {f"chain.{name}.shape": member.shape for name, member in study.chain.items()}
    shapes |= {f"desnets.{name}.shape": desnet.shape for name, desnet in study.desnets.items()}
    for section in ("ancestors", "chain"):
        for name, entry in getattr(study, section).items():
            if isinstance(entry.elastic, Elastic):
                shapes[f"{section}.{name}.elastic.smallest"] = entry.elastic.smallest
    table = study.architecture.table
    for where, shape in shapes.items():
        if shape and (problem := table.shape_problem(study.architecture.sizes(shape))):
            yield f"{where}: {problem}"
    for name, ancestor in study.ancestors.items():
        if ancestor.select == "rotate" and table.norm != "rms":
            yield (
                f"ancestors.{name}.select: 'rotate' needs a family with RMSNorm; {table.name} has LayerNorm, whose residual "
                "stream can only be permuted: use 'rank'"
            )


def size_problems(study: "Study") -> Iterator[str]:
    """A chain that does not descend, DesNets that an initialiser cannot serve."""
    members = study.members()
    for larger, smaller in pairwise(members):
        large, small = (study.parameters(study.chain[name].shape) for name in (larger, smaller))
        if small >= large:
            yield (
                f"chain.{smaller}: {small:,} parameters follow {larger}'s {large:,}; "
                "members go from the largest to the smallest"
            )
    found = [line for ancestor in study.ancestors for line in _built_problems(study, ancestor)]
    yield from dict.fromkeys(found)
    for name in study.desnets:
        alpha, layers = study.desnets[name].alpha, study.desnets[name].shape.layers
        if isinstance(alpha, list) and len(alpha) != layers:
            yield f"desnets.{name}.alpha: {len(alpha)} values for {layers} layers; give one number, or one for each layer"
    for name, initialiser in study.initialisers.items():
        if initialiser.kind == "single" and initialiser.method not in ("paper", "lossless"):
            yield f"initialisers.{name}.method: {initialiser.method!r} needs two neighbours; single has paper and lossless"
    if not study.perplexity and any(initialiser.alpha == "search" for initialiser in study.initialisers.values()):
        yield "initialisers: alpha 'search' needs a corpus under perplexity, to score the candidates on"


def _built_problems(study: "Study", ancestor: str) -> Iterator[str]:
    """Why the DesNets of an ancestor cannot be built from its chain."""
    built: dict[str, list[str]] = {}
    for name, initialiser, _ in study.built(ancestor):
        built.setdefault(name, []).append(initialiser)
    for name, initialisers in built.items():
        kinds = {study.initialisers[initialiser].kind for initialiser in initialisers}
        methods = {study.initialisers[initialiser].method for initialiser in initialisers}
        smaller, larger = study.neighbours(name, ancestor)
        shared = {initialiser for initialiser in initialisers if study.initialisers[initialiser].teacher == "shared"}
        if shared and larger is None:
            yield f"desnets.{name}.shape: above the chain's largest member, where no teacher is shared ({', '.join(shared)})"
        if "hypercloning" in kinds and study.cloned(name, ancestor) is None:
            yield f"desnets.{name}.shape: no member's widths fit a whole number of times, as hypercloning needs"
        if "single" in kinds and smaller is None:
            yield f"desnets.{name}.shape: below the chain's smallest member {larger}, where there is none to expand (single)"
        if kinds & {"linit", "subset"}:
            lossless = "linit" in kinds and "lossless" in methods
            yield from _neighbour_problems(study, study.members(ancestor)[0], name, smaller, larger, lossless)


def elastic_problems(study: "Study") -> Iterator[str]:
    """Elastic members that have nothing to go down to, and DesNets that are to be cut out of what is not elastic."""
    members, seen = study.members(), set()
    last = study.chain[members[-1]].elastic
    if last is True or (last and last.smallest is None):
        yield f"chain.{members[-1]}.elastic: the last member has no next one to go down to; give elastic.smallest, a shape"
    for ancestor in study.ancestors:
        for member in study.members(ancestor):
            if elastic := study.elastic(ancestor, member):
                ours, theirs = (study.architecture.sizes(s) for s in (elastic.smallest, study.chain[member].shape))
                seen |= {
                    f"chain.{member}: elastic.smallest has {axis} {ours[axis]}, the member {theirs[axis]}"
                    for axis in ("layer", *study.architecture.table.widths)
                    if ours[axis] > theirs[axis]
                }
                seen |= {
                    f"chain.{member}: elastic.smallest has {axis} {ours[axis]}, the member {theirs[axis]}; heads and groups "
                    "are taken whole, so they must agree"
                    for axis in ("head_dim", "query")
                    if ours[axis] != theirs[axis]
                }
    yield from sorted(seen)
    for ancestor in study.ancestors if not seen else ():
        for name in dict.fromkeys(
            n for n, init, _ in study.built(ancestor) if study.initialisers[init].method == "cut"
        ):
            yield from _cut_problems(study, ancestor, name)


def _cut_problems(study: "Study", ancestor: str, desnet: str) -> Iterator[str]:
    where, (_, larger) = f"desnets.{desnet}.shape", study.neighbours(desnet, ancestor)
    if larger is None:
        return
    elastic = study.elastic(ancestor, larger)
    if elastic is None:
        yield (
            f"desnets.{desnet}: its larger neighbour {larger} is not elastic in {ancestor}'s chain, nothing can be cut "
            "out of it; set elastic, or leave out the initialiser of method cut (desnets.<name>.initialisers)"
        )
        return
    ours, least = (study.architecture.sizes(shape) for shape in (study.desnets[desnet].shape, elastic.smallest))
    for axis in ("layer", *study.architecture.table.widths):
        if ours[axis] < least[axis]:
            yield f"{where}: {axis} is {ours[axis]}, but {larger} is elastic down to {least[axis]} only (elastic.smallest)"


def _neighbour_problems(
    study: "Study", first: str, desnet: str, smaller: str | None, larger: str | None, lossless: bool
) -> Iterator[str]:
    """Why a DesNet cannot be interpolated from its neighbours; `first` is the chain's largest member."""
    shape, where = study.desnets[desnet].shape, f"desnets.{desnet}.shape"
    if larger is None:
        largest = study.chain[first].shape
        yield (
            f"{where}: {shape} has {study.parameters(shape):,} parameters, above the chain's largest member "
            f"{first} ({largest}: {study.parameters(largest):,}); only hypercloning, single and rand go there"
        )
        return
    ours = study.architecture.sizes(shape)
    for neighbour in filter(None, (smaller, larger)):
        theirs = study.architecture.sizes(study.chain[neighbour].shape)
        if theirs["head_dim"] != ours["head_dim"]:
            yield (
                f"{where}: head_dim is {ours['head_dim']}, but {theirs['head_dim']} in {neighbour}; "
                "heads are taken whole, so they must agree"
            )
        elif theirs["query"] != ours["query"]:
            yield (
                f"{where}: has {ours['query']} query heads per key/value head, but {neighbour} {theirs['query']}; "
                "groups are taken whole, so they must agree"
            )
    for axis in ("layers", "heads", "kv_heads", "hidden", "ffn"):
        wanted, most = getattr(shape, axis), getattr(study.chain[larger].shape, axis)
        if wanted > most:
            yield (
                f"{where}.{axis}: {wanted} is more than the {most} of its larger neighbour {larger}; "
                f"at most {most} is allowed"
            )
        least = getattr(study.chain[smaller].shape, axis) if smaller and lossless else 0
        if wanted < least:
            yield (
                f"{where}.{axis}: {wanted} is less than the {least} of its smaller neighbour {smaller}, which cannot grow "
                "to that losslessly; leave out the lossless initialiser (desnets.<name>.initialisers)"
            )


def length_problems(study: "Study") -> Iterator[str]:
    """Sequences that are longer than the chain's models can read."""
    positions = study.architecture.positions
    lengths = {
        f"stages.{name}.max_length": stage.max_length
        for name in ("pretrain", "recover", "bridge", "distill")
        if (stage := getattr(study.stages, name))
    }
    if not any(ancestor.bridge for ancestor in study.ancestors.values()):
        lengths.pop("stages.bridge.max_length")
    for name, task in study.tasks.items():
        if task.fine_tune:
            lengths[f"tasks.{name}.fine_tune.max_length"] = task.fine_tune.max_length
        rows = study.instructions[task.instructions].max_tokens
        if rows + task.max_new_tokens > positions:
            yield (
                f"tasks.{name}.max_new_tokens: {task.max_new_tokens} after prompts of up to {rows} tokens "
                f"(instructions.{task.instructions}.max_tokens) is more than architecture.positions {positions}"
            )
    for path, length in lengths.items():
        if length > positions:
            yield f"{path}: {length} is more than architecture.positions {positions}"


def distill_problems(study: "Study") -> Iterator[str]:
    """Objectives without the data or the sizes that they need, each once."""
    seen = set()
    for ancestor in study.ancestors:
        found = [
            (_override_path(study, ancestor, member), study.distill_settings(ancestor, member))
            for member in study.members(ancestor)
        ]
        found += [
            (f"initialisers.{name}.distill", study.desnet_distill_settings(ancestor, name))
            for name, initialiser in study.initialisers.items()
            if initialiser.kind == "distilled"
        ]
        for path, settings in found:
            for line in _objective_problems(study, settings):
                if line not in seen:
                    seen.add(line)
                    yield f"{path}: {line}"
        for teacher in (None, *study.members(ancestor)):
            settings = [study.distill_settings(ancestor, member) for member in study.taught_by(ancestor, teacher)]
            wanted = {(each.signal, each.max_length, tuple(each.data)) for each in settings if each.signal}
            if len(wanted) > 1:
                yield (
                    f"ancestors.{ancestor}: the students of {teacher or 'the ancestor'} want its signal with different "
                    f"signal, max_length or data {sorted(wanted)}; they share one"
                )


def _objective_problems(study: "Study", settings: Distill) -> Iterator[str]:
    objective, rollout = settings.objective, settings.rollout
    if objective in ("seqkd", "minillm", "on_policy"):
        if not any(name in study.instructions for name in settings.data):
            yield f"data: {settings.data} are corpora only; objective {objective!r} answers prompts: add instructions"
        if settings.signal:
            yield f"signal: {settings.signal}; objective {objective!r} is not on the data's tokens: null is allowed"
    if objective in ("minillm", "on_policy") and rollout.size % settings.batch_size:
        yield f"rollout.size: {rollout.size} is not a multiple of batch_size {settings.batch_size}"


def _override_path(study: "Study", ancestor: str, member: str) -> str:
    """Where a member's settings are changed last."""
    if study.chain[member].distill:
        return f"chain.{member}.distill"
    return f"ancestors.{ancestor}.distill" if study.ancestors[ancestor].distill else "stages.distill"


def _override_problems(study: "Study", section: str, name: str) -> Iterator[str]:
    """Keys and values that `stages.distill` does not know."""
    settings, overrides = study.stages.distill, getattr(study, section)[name].distill
    try:
        type(settings).model_validate({**settings.model_dump(), **overrides})
    except ValidationError as error:
        yield from (f"{section}.{name}.distill.{line}" for line in lines(error))


def lines(error: ValidationError) -> Iterator[str]:
    """One line per problem: key path, value seen, what is allowed."""
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "value_error":
            for line in str(problem["ctx"]["error"]).splitlines():
                yield f"{path}: {line}" if path else line
        elif problem["type"] == "extra_forbidden":
            yield f"{path}: unknown key"
        elif problem["type"] == "missing":
            yield f"{path}: missing"
        else:
            yield f"{path}: {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
