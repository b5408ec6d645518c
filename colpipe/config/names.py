"""Whether every name in a study is the name of something in it, section by section (no torch here).

Each function yields one line per problem: key path, value, what is allowed.
"""

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from colpipe.config.constants import SCRATCH
from colpipe.config.paper import names
from colpipe.config.parts import LEFT_OUT, problem_lines, tokens_label
from colpipe.config.study import Study

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def unknown_names(study: Study) -> Iterator[str]:
    """References to what the study does not have, and names that stand for two things."""
    yield from _data_problems(study)
    yield from _ancestor_problems(study)
    yield from _chain_problems(study)
    yield from _budget_problems(study)
    yield from _desnet_problems(study)
    yield from _initialiser_problems(study)
    yield from _task_problems(study)
    yield from _stack_problems(study)
    yield from _stage_problems(study)
    yield from _shared_name_problems(study)
    yield from _paper_problems(study)


def _check(study: Study, where: str, name: str | None, section: str) -> Iterator[str]:
    """Whether a name, if there is one, is in a section."""
    known = getattr(study, section)
    if name == LEFT_OUT:
        yield f"{where}: missing, and nothing in the study says it; {section}: {', '.join(known) or 'empty'}"
    elif name is not None and name not in known:
        yield f"{where}: {name!r} is not in {section} ({', '.join(known) or 'which is empty'})"


def _check_all(study: Study, where: str, given: Iterable[str] | None, section: str) -> Iterator[str]:
    for number, name in enumerate(given or []):
        yield from _check(study, f"{where}.{number}", name, section)


def _data_problems(study: Study) -> Iterator[str]:
    yield from _check(study, "tokenizer.train", study.tokenizer.train, "corpora")
    yield from _check(study, "tokenizer.model", study.tokenizer.model, "models")
    for section in ("corpora", "instructions"):
        for name, entry in getattr(study, section).items():
            yield from _check(study, f"{section}.{name}.dataset", entry.dataset, "datasets")
    for name, corpus in study.corpora.items():
        for part in corpus.data or ():
            yield from _check(study, f"corpora.{name}.data.{part}", part, "corpora")
        if corpus.written:
            yield from _check(study, f"corpora.{name}.written.openings", corpus.written.openings, "corpora")
            yield from _check(study, f"corpora.{name}.written.ancestor", corpus.written.ancestor, "ancestors")


def _ancestor_problems(study: Study) -> Iterator[str]:
    for name, ancestor in study.ancestors.items():
        yield from _check(study, f"ancestors.{name}.model", ancestor.model, "models")
        yield from _check(study, f"ancestors.{name}.bridge", ancestor.bridge, "models")
        yield from _override_problems(study, "ancestors", name)
        for key, section in (("members", "chain"), *((same, same) for same in ("desnets", "initialisers", "tasks"))):
            yield from _check_all(study, f"ancestors.{name}.{key}", getattr(ancestor, key), section)
        if ancestor.members == []:
            yield f"ancestors.{name}.members: [] leaves no chain; name one member, or leave it out"


def _chain_problems(study: Study) -> Iterator[str]:
    for name, member in study.chain.items():
        yield from _check(study, f"chain.{name}.model", member.model, "models")
        if name in study.models:
            yield f"chain.{name}: a model has this name too; members and models need different names"
        yield from _override_problems(study, "chain", name)


def _budget_problems(study: Study) -> Iterator[str]:
    for section in ("ancestors", "desnets", "initialisers"):
        for name, entry in getattr(study, section).items():
            for number, tokens in enumerate(entry.budgets or []):
                if tokens not in study.budgets:
                    known = ", ".join(map(str, study.budgets))
                    yield f"{section}.{name}.budgets.{number}: {tokens} is not in budgets ({known})"


def _desnet_problems(study: Study) -> Iterator[str]:
    for name, desnet in study.desnets.items():
        yield from _check_all(study, f"desnets.{name}.initialisers", desnet.initialisers, "initialisers")


def _initialiser_problems(study: Study) -> Iterator[str]:
    for name, initialiser in study.initialisers.items():
        yield from _override_problems(study, "initialisers", name)
        if initialiser.distill and initialiser.kind != "distilled":
            yield f"initialisers.{name}.distill: goes with kind 'distilled' only, this is {initialiser.kind!r}"
        yield from _check_all(study, f"initialisers.{name}.tasks", initialiser.tasks, "tasks")


def _task_problems(study: Study) -> Iterator[str]:
    for name, task in study.tasks.items():
        yield from _check(study, f"tasks.{name}.instructions", task.instructions, "instructions")
        yield from _check(study, f"tasks.{name}.train", task.train, "instructions")


def _stack_problems(study: Study) -> Iterator[str]:
    for name, stack in study.stacks.items():
        yield from _check(study, f"stacks.{name}.ancestor", stack.ancestor, "ancestors")
        yield from _check(study, f"stacks.{name}.member", stack.member, "chain")
        yield from _check_all(study, f"stacks.{name}.tasks", stack.tasks, "tasks")
        for task in stack.tasks:
            if task in study.tasks and not study.tasks[task].max_new_tokens:
                yield f"stacks.{name}.tasks: {task!r} generates nothing (max_new_tokens: 0), and a stack does nothing else"
        if stack.ancestor in study.ancestors and stack.member not in study.members(stack.ancestor):
            yield f"stacks.{name}.member: {stack.member!r} is no member of {stack.ancestor}'s chain"
        if name in study.initialisers:
            yield f"stacks.{name}: an initialiser has this name too; they need different names"


def _stage_problems(study: Study) -> Iterator[str]:
    yield from _check_all(study, "perplexity", study.perplexity, "corpora")
    for stage in ("pretrain", "recover", "order", "fit"):
        if settings := getattr(study.stages, stage):
            yield from _check(study, f"stages.{stage}.corpus", settings.corpus, "corpora")
    for stage in ("sft", "answers"):
        if settings := getattr(study.stages, stage):
            yield from _check(study, f"stages.{stage}.instructions", settings.instructions, "instructions")
    data = {"stages.distill": study.stages.distill.data}
    for section in ("ancestors", "chain", "initialisers"):
        for name, entry in getattr(study, section).items():
            data[f"{section}.{name}.distill"] = entry.distill.get("data", [])
    for path, given in data.items():
        for number, name in enumerate(given):
            if name not in study.corpora and name not in study.instructions:
                known = ", ".join([*study.corpora, *study.instructions])
                place = name if isinstance(given, dict) else number
                yield f"{path}.data.{place}: {name!r} is in neither corpora nor instructions ({known})"


def _shared_name_problems(study: Study) -> Iterator[str]:
    for name in set(study.corpora) & set(study.instructions):
        yield f"corpora.{name}: instructions has this name too; they need different names"
    for name in set(study.perplexity) & set(study.tasks):
        yield f"tasks.{name}: a corpus under perplexity has this name too; scores need different names"
    if SCRATCH in study.ancestors:
        yield f"ancestors.{SCRATCH}: the name is taken: random DesNets are kept under it"


def _paper_problems(study: Study) -> Iterator[str]:
    own = {*study.ancestors, *study.chain, *study.desnets, *study.initialisers, *study.stacks, *study.tasks}
    own |= {tokens_label(tokens) for tokens in study.budgets}
    shown = names() if study.paper else ()
    for name, stand_in in study.paper.items():
        if name not in shown:
            yield f"paper.{name}: not a name of the paper's tables (colpipe/config/paper.yaml has {', '.join(shown)})"
        if stand_in not in own:
            yield f"paper.{name}: {stand_in!r} is no ancestor, member, DesNet, initialiser, budget or task of the study"


def _override_problems(study: Study, section: str, name: str) -> Iterator[str]:
    """Keys and values of a `distill` override that `stages.distill` does not know."""
    settings, overrides = study.stages.distill, getattr(study, section)[name].distill
    try:
        type(settings).model_validate({**settings.model_dump(), **overrides})
    except ValidationError as error:
        yield from (f"{section}.{name}.distill.{line}" for line in problem_lines(error))
