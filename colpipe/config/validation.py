"""Whether the parts of a study fit together: stages, shapes, lengths, objectives (no torch here).

Each function yields one line per problem: key path, value, what is allowed.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import ceil, log

from colpipe.architectures.widths import BLOCK, NARROW, not_quantisable, unaligned
from colpipe.config.constants import COMPLETION_OBJECTIVES, SAMPLED_OBJECTIVES
from colpipe.config.parts import Shape
from colpipe.config.stages import Distill, Elastic
from colpipe.config.study import Study

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def missing_stages(study: Study) -> Iterator[str]:
    """Stages that something in the study needs and that have no settings."""
    scratch = [f"models.{n}" for n, model in study.models.items() if model.shape]
    scratch += [f"chain.{n}" for n, member in study.chain.items() if member.start == "scratch"]
    scratch += [f"ancestors.{n}" for n, ancestor in study.ancestors.items() if ancestor.start == "scratch"]
    needs = {
        "pretrain": scratch,
        "answers": [f"ancestors.{n}.bridge" for n, ancestor in study.ancestors.items() if ancestor.bridge],
        "order": [f"ancestors.{n}.select" for n, a in study.ancestors.items() if a.select in ("rank", "rotate")],
        "fit": [f"chain.{n}.start" for a in study.ancestors for n in study.members(a) if study.start(a, n) == "fit"]
        + [f"initialisers.{name}.method" for name in study.initialisers if study.fits(name)],
        "recover": [f"budgets ({tokens})" for tokens in study.budgets if tokens],
    }
    for stage, users in needs.items():
        if users and getattr(study.stages, stage) is None:
            yield f"stages.{stage}: missing, but {users[0]} needs it"


def shape_problems(study: Study) -> Iterator[str]:
    """Shapes that the family has no model of, and orders that it has not."""
    table, step = study.architecture.table, study.architecture.align
    for where, shape in _shapes(study):
        if problem := table.shape_problem(study.architecture.sizes(shape)):
            yield f"{where}: {problem}"
        elif step and (widths := unaligned({"hidden": shape.hidden, "ffn": shape.ffn}, step)):
            yield f"{where}: {widths}: not in multiples of architecture.align {step}; 1 there allows any width"
        elif step and step >= BLOCK and (widths := unaligned(shape.widths)):
            yield f"{where}: {widths}: not in multiples of {BLOCK}, which architecture.align {step} asks for; 1 allows any"
    for name, ancestor in study.ancestors.items():
        if ancestor.select == "rotate" and table.rotation_problem:
            yield f"ancestors.{name}.select: 'rotate': {table.rotation_problem}: use 'rank'"


def _shapes(study: Study) -> Iterator[tuple[str, Shape]]:
    """(key path, shape) of all that the study makes, as far as they are known."""
    shapes = {f"models.{name}.shape": model.shape for name, model in study.models.items()}
    shapes |= {f"chain.{name}.shape": member.shape for name, member in study.chain.items()}
    shapes |= {f"desnets.{name}.shape": desnet.shape for name, desnet in study.desnets.items()}
    for section in ("ancestors", "chain"):
        for name, entry in getattr(study, section).items():
            if isinstance(entry.elastic, Elastic):
                shapes[f"{section}.{name}.elastic.smallest"] = entry.elastic.smallest
    return ((where, shape) for where, shape in shapes.items() if shape)


def not_quantisable_shapes(study: Study) -> Iterator[str]:
    """A line on shapes that quantised formats do not take, where the study does not say which widths it wants; not on models
    of less than 256 channels, which are for trying things out."""
    found = {where: not_quantisable(shape.widths) for where, shape in _shapes(study) if shape.hidden >= NARROW}
    names = [where for where, phrase in found.items() if phrase]
    if names and study.architecture.align is None:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        yield f"{names[0]}: {found[names[0]]}{more}; architecture.align: {BLOCK} refuses such shapes, 1 allows them"


def size_problems(study: Study) -> Iterator[str]:
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
        if alpha is not None and (unmixed := _unmixed(study, name)):
            yield (
                f"desnets.{name}.alpha: {alpha!r}: nothing that it is built with mixes two neighbours ({unmixed}); leave it "
                "out, or give an initialiser that does, such as {kind: linit, method: nested}"
            )
    for name, initialiser in study.initialisers.items():
        known = {"single": ("paper", "lossless"), "subset": ("paper", "fit")}.get(initialiser.kind, ("paper",))
        if initialiser.kind != "linit" and initialiser.method not in known:
            yield (
                f"initialisers.{name}.method: {initialiser.method!r} is of linit; {initialiser.kind} has "
                + (" and ".join(known) if len(known) > 1 else "none: leave it out")
            )
        what = f"method {initialiser.method!r}" if initialiser.kind == "linit" else f"kind {initialiser.kind!r}"
        for key, plain in (("alpha", "auto"), ("compensate", 0.0)):
            if not study.mixes(name) and (value := getattr(initialiser, key)) != plain:
                yield f"initialisers.{name}.{key}: {value!r}: {what} mixes nothing; leave it out"
    if not study.perplexity and any(initialiser.alpha == "search" for initialiser in study.initialisers.values()):
        yield "initialisers: alpha 'search' needs a corpus under perplexity, to score the candidates on"


def _unmixed(study: Study, desnet: str) -> str:
    """The initialisers that a DesNet is built with, as words, where none mixes two neighbours; otherwise empty."""
    builds = [(init, a) for a in study.ancestors for name, init, _ in study.builds_of(a) if name == desnet]
    mixed = any(study.alpha(desnet, *build) is not None for build in builds)
    return "" if mixed else ", ".join(dict(builds))


def _built_problems(study: Study, ancestor: str) -> Iterator[str]:
    """Why the DesNets of an ancestor cannot be built from its chain."""
    built: dict[str, list[str]] = {}
    for name, initialiser, _ in study.builds_of(ancestor):
        built.setdefault(name, []).append(initialiser)
    for name, initialisers in built.items():
        kinds = {study.initialisers[initialiser].kind for initialiser in initialisers}
        methods = {study.initialisers[initialiser].method for initialiser in initialisers}
        smaller, larger = study.neighbours(name, ancestor)
        shared = {initialiser for initialiser in initialisers if study.initialisers[initialiser].teacher == "shared"}
        if shared and larger is None:
            yield f"desnets.{name}.shape: above the chain's largest member, where no teacher is shared ({', '.join(shared)})"
        if "hypercloning" in kinds and study.hypercloning_source(name, ancestor) is None:
            yield f"desnets.{name}.shape: no member's widths fit a whole number of times, as hypercloning needs"
        if "single" in kinds and smaller is None:
            yield f"desnets.{name}.shape: below the chain's smallest member {larger}, where there is none to expand (single)"
        if "single" in kinds and smaller:
            lossless = any(study.initialisers[i].kind == "single" and study.initialisers[i].method == "lossless"
                           for i in initialisers)  # fmt: skip
            yield from _single_problems(study, name, smaller, lossless)
        if kinds & {"linit", "subset"}:
            lossless = "linit" in kinds and "lossless" in methods
            yield from _neighbour_problems(study, study.members(ancestor)[0], name, smaller, larger, lossless)


def _single_problems(study: Study, desnet: str, smaller: str, lossless: bool) -> Iterator[str]:
    """Why a DesNet cannot be its smaller neighbour expanded."""
    where, table = f"desnets.{desnet}.shape", study.architecture.table
    shapes = study.desnets[desnet].shape, study.chain[smaller].shape
    ours, theirs = (study.architecture.sizes(shape) for shape in shapes)
    yield from _head_problems(where, ours, theirs, smaller)
    for axis in ("layer", *table.widths) if lossless else ():
        if ours[axis] < theirs[axis]:
            yield _no_growth(f"{where}: {axis} is {ours[axis]}, less than the {theirs[axis]}", smaller)
    if lossless and (line := _more_heads(study, desnet, smaller)):
        yield line


def _no_growth(what: str, smaller: str) -> str:
    return (
        f"{what} of its smaller neighbour {smaller}, which cannot grow to that losslessly; leave out the lossless "
        "initialiser (desnets.<name>.initialisers)"
    )


def _more_heads(study: Study, desnet: str, smaller: str) -> str:
    """Why heads cannot be added losslessly, if they are and cannot be."""
    wanted, least = study.desnets[desnet].shape.heads, study.chain[smaller].shape.heads
    if not study.architecture.table.norms_all_heads or wanted == least:
        return ""
    return _no_growth(
        f"desnets.{desnet}.shape.heads: {wanted}, and {study.architecture.family} normalises queries and keys over all "
        f"heads, the {least}",
        smaller,
    )


def _head_problems(where: str, ours: Mapping[str, int], theirs: Mapping[str, int], neighbour: str) -> Iterator[str]:
    """Sizes of heads and groups, which are taken whole, that are not a neighbour's."""
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


def elastic_problems(study: Study) -> Iterator[str]:
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
            n for n, init, _ in study.builds_of(ancestor) if study.initialisers[init].method == "cut"
        ):
            yield from _cut_problems(study, ancestor, name)


def _cut_problems(study: Study, ancestor: str, desnet: str) -> Iterator[str]:
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
    study: Study, first: str, desnet: str, smaller: str | None, larger: str | None, lossless: bool
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
        yield from _head_problems(where, ours, theirs, neighbour)
    for axis in ("layers", "heads", "kv_heads", "hidden", "ffn"):
        wanted, most = getattr(shape, axis), getattr(study.chain[larger].shape, axis)
        if wanted > most:
            yield (
                f"{where}.{axis}: {wanted} is more than the {most} of its larger neighbour {larger}; "
                f"at most {most} is allowed"
            )
        least = getattr(study.chain[smaller].shape, axis) if smaller and lossless else 0
        if wanted < least:
            yield _no_growth(f"{where}.{axis}: {wanted} is less than the {least}", smaller)
    if smaller and lossless and (line := _more_heads(study, desnet, smaller)):
        yield line


def length_problems(study: Study) -> Iterator[str]:
    """Sequences that are longer than the chain's models can read."""
    positions = study.architecture.positions
    lengths = {
        f"stages.{name}.max_length": stage.max_length
        for name in ("pretrain", "recover", "bridge", "fit", "distill", "evaluate")
        if (stage := getattr(study.stages, name)) and stage.max_length
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
    yield from _less_than_a_block(study)


def _less_than_a_block(study: Study) -> Iterator[str]:
    """Texts that are too short for a single block."""
    stages = study.stages
    pretrain, recover, order, fit = stages.pretrain, stages.recover, stages.order, stages.fit
    texts = [("pretrain", "stages.pretrain.tokens", pretrain.tokens, pretrain.max_length)] if pretrain else []
    texts += [("order", "stages.order.tokens", order.tokens, order.max_length)] if order else []
    texts += [("fit", "stages.fit.tokens", fit.tokens, fit.max_length)] if fit else []
    texts += [("recover", "budgets", tokens, recover.max_length) for tokens in study.budgets] if recover else []
    for stage, path, tokens, length in texts:
        if tokens and tokens < length:
            yield f"{path}: {tokens} tokens are less than a block of stages.{stage}.max_length {length}"


def prompt_problems(study: Study) -> Iterator[str]:
    """Chat templates where nobody would ask with them."""
    for name, model in study.models.items():
        if model.prompts == "chat" and not study.is_bridged(name):
            yield (
                f"models.{name}.prompts: 'chat' is for an ancestor that has a bridge; a chain with the ancestor's own "
                "tokenizer is asked as tokenizer.prompts says: write it there"
            )
    for name in {ancestor.model for ancestor in study.ancestors.values() if not ancestor.bridge}:
        if study.is_bridged(name) and study.models[name].prompts != study.tokenizer.prompts:
            yield (
                f"models.{name}.prompts: {study.models[name].prompts!r}, tokenizer.prompts {study.tokenizer.prompts!r}: the "
                "model is fine-tuned once, and is an ancestor with a bridge and one without: give the same"
            )
    if study.stacks and study.tokenizer.prompts == "chat":
        yield f"stacks.{next(iter(study.stacks))}: stacks ask with the paper's prompts; tokenizer.prompts must be 'paper'"


def warmup_problems(study: Study) -> Iterator[str]:
    """Warm-ups of pre-trainings on so many tokens that are longer than these last."""
    stages = [("stages.pretrain", study.stages.pretrain, study.stages.pretrain.tokens)] if study.stages.pretrain else []
    if study.stages.recover:
        stages += [("stages.recover", study.stages.recover, tokens) for tokens in study.budgets]
    for path, settings, tokens in stages:
        if settings.warmup < 1 or settings.steps or not tokens:
            continue
        steps = ceil(settings.epochs * ceil(tokens // settings.max_length / settings.batch_size))
        if settings.warmup > steps:
            yield (
                f"{path}.warmup: {settings.warmup:g} steps are more than the {steps} of {tokens:,} tokens; "
                "a share of the steps, such as 0.02, fits any"
            )


def stop_problems(study: Study) -> Iterator[str]:
    """A recovery that would end before it begins: at a loss that a uniform guess is better than."""
    stop_at, vocabulary = study.stages.recover and study.stages.recover.stop_at, study.architecture.vocabulary
    if stop_at and stop_at >= log(vocabulary):
        yield (
            f"stages.recover.stop_at: {stop_at:g} nats per token are no better than a uniform guess "
            f"({log(vocabulary):.2f}, ln {vocabulary:,}); give less, or a share of the ancestor's quality such as 0.95"
        )


def distill_problems(study: Study) -> Iterator[str]:
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
            students = [study.distill_settings(ancestor, member) for member in study.students_of(ancestor, teacher)]
            wanted = {
                (each.signal, each.max_length, _data_text(each), each.precision) for each in students if each.signal
            }
            if len(wanted) > 1:
                yield (
                    f"ancestors.{ancestor}: the students of {teacher or 'the ancestor'} want its cached "
                    f"log-probabilities with different signal, max_length, data or precision {sorted(wanted)}; they "
                    "share one cache"
                )


def _data_text(settings: Distill) -> tuple[str, ...]:
    """What is distilled on, and in which shares, to compare."""
    weights = settings.weights
    return tuple(f"{name}: {weights[name]:g}" if weights else name for name in settings.names)


def _objective_problems(study: Study, settings: Distill) -> Iterator[str]:
    objective, rollout = settings.objective, settings.rollout
    if not settings.data and objective not in COMPLETION_OBJECTIVES:
        yield "data: []; name corpora or instructions to distil on"
    if objective in COMPLETION_OBJECTIVES:
        if settings.weights:
            yield f"data: {settings.weights} are weights; objective {objective!r} answers prompts: give a list of names"
        if not any(name in study.instructions for name in settings.data):
            yield f"data: {settings.names} are corpora only; objective {objective!r} answers prompts: add instructions"
        if settings.signal:
            yield f"signal: {settings.signal}; objective {objective!r} is not on the data's tokens: null is allowed"
    if objective in SAMPLED_OBJECTIVES and rollout.size % settings.batch_size:
        yield f"rollout.size: {rollout.size} is not a multiple of batch_size {settings.batch_size}"


def _override_path(study: Study, ancestor: str, member: str) -> str:
    """Where a member's settings are changed last."""
    if study.chain[member].distill:
        return f"chain.{member}.distill"
    return f"ancestors.{ancestor}.distill" if study.ancestors[ancestor].distill else "stages.distill"
