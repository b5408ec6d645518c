"""What the jobs of each rule read and with which settings, rule by rule (no torch here).

For each rule there are two functions named after it, `<rule>_parents` and `<rule>_settings`; both take the plan and the
rule's wildcards. Inputs are written once, as {flag: folder} or {flag: {name: folder}}; `colpipe/plan.py` turns them into
what Snakemake wants.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from colpipe import exhibits
from colpipe.checks import SCRATCH
from colpipe.settings import Shape
from colpipe.stage_settings import Distill

if TYPE_CHECKING:
    from colpipe.plan import Plan

Parents = dict[str, str | dict[str, str]]
ORIGIN = "origin"  # stands for the ancestor, or its bridge, among the teachers of a chain


def train_tokenizer_parents(plan: "Plan", _: object) -> Parents:
    return {"dataset": plan.datasets[plan.study.corpora[plan.study.tokenizer.train].dataset]}


def train_tokenizer_settings(plan: "Plan", _: object) -> dict:
    study = plan.study
    return {
        "dataset": study.datasets[study.corpora[study.tokenizer.train].dataset],
        "vocabulary": study.architecture.vocabulary,
        "positions": study.architecture.positions,
    }


def prepare_corpus_parents(plan: "Plan", wildcards) -> Parents:
    dataset = plan.study.corpora[wildcards.corpus].dataset
    return {"dataset": plan.datasets[dataset], "tokenizer": plan.tokenizer}


def prepare_corpus_settings(plan: "Plan", wildcards) -> BaseModel:
    return plan.study.datasets[plan.study.corpora[wildcards.corpus].dataset]


def prepare_instructions_parents(plan: "Plan", wildcards) -> Parents:
    dataset = plan.study.instructions[wildcards.instructions].dataset
    return {"dataset": plan.datasets[dataset], "tokenizer": plan.tokenizer}


def prepare_instructions_settings(plan: "Plan", wildcards) -> dict:
    instructions = plan.study.instructions[wildcards.instructions]
    return {"dataset": plan.study.datasets[instructions.dataset], "instructions": instructions}


def pretrain_parents(plan: "Plan", _: object) -> Parents:
    return {"corpus": plan.data(plan.study.stages.pretrain.corpus), "tokenizer": plan.tokenizer}


def pretrain_settings(plan: "Plan", wildcards) -> dict:
    owner = {**plan.study.models, **plan.study.chain}[wildcards.start]
    return {
        "architecture": plan.study.architecture,
        "shape": owner.shape,
        "training": plan.study.stages.pretrain,
    }


def sft_parents(plan: "Plan", wildcards) -> Parents:
    return {"model": plan.start(wildcards.start), "instructions": plan.data(plan.study.stages.sft.instructions)}


def sft_settings(plan: "Plan", wildcards) -> dict:
    return {"training": plan.study.stages.sft, "prompts": _prompts(plan, wildcards.start)}


def _prompts(plan: "Plan", model: str) -> str:
    return plan.study.models[model].prompts if model in plan.study.models else "paper"


def bridge_answers_parents(plan: "Plan", wildcards) -> Parents:
    return {
        "model": f"{plan.results}/sft/{plan.study.ancestors[wildcards.ancestor].model}",
        "instructions": plan.data(plan.study.stages.answers.instructions),
    }


def bridge_answers_settings(plan: "Plan", wildcards) -> dict:
    prompts = _prompts(plan, plan.study.ancestors[wildcards.ancestor].model)
    return {"answers": plan.study.stages.answers, "prompts": prompts}


def bridge_parents(plan: "Plan", wildcards) -> Parents:
    bridge = plan.study.ancestors[wildcards.ancestor].bridge
    return {"model": plan.start(bridge), "answers": f"{plan.results}/answers/{wildcards.ancestor}"}


def bridge_settings(plan: "Plan", _: object) -> BaseModel:
    return plan.study.stages.bridge


def order_parents(plan: "Plan", wildcards) -> Parents:
    return {"model": plan.origin(wildcards.ancestor), "corpus": plan.data(plan.study.stages.order.corpus)}


def order_settings(plan: "Plan", wildcards) -> dict:
    return {
        "select": plan.study.ancestors[wildcards.ancestor].select,
        "tied": plan.study.architecture.is_tied,
        "measuring": plan.study.stages.order,
    }


def distill_parents(plan: "Plan", wildcards) -> Parents:
    ancestor, member = plan.study.ancestors[wildcards.ancestor], plan.study.chain[wildcards.member]
    settings = plan.study.distill_settings(wildcards.ancestor, wildcards.member)
    before = plan.study.teacher(wildcards.ancestor, wildcards.member)
    begins = ancestor.start or member.start
    start = {"pretrained": member.model, "scratch": wildcards.member}.get(begins)
    signal = f"{plan.results}/signals/{wildcards.ancestor}/{before or ORIGIN}" if settings.signal else None
    return {
        **_taught(plan, wildcards.ancestor, before, settings, inherits=begins == "inherit"),
        **({"student": f"{plan.results}/sft/{start}"} if start else {}),
        **({"signal": signal} if signal else {}),
    }


def distill_settings(plan: "Plan", wildcards) -> dict:
    settings = plan.study.distill_settings(wildcards.ancestor, wildcards.member)
    distilled = _distilled(plan, wildcards.ancestor, plan.study.chain[wildcards.member].shape, settings)
    return {**distilled, "elastic": plan.study.elastic(wildcards.ancestor, wildcards.member)}


def distill_desnet_parents(plan: "Plan", wildcards) -> Parents:
    teacher, (_, larger) = None, plan.study.neighbours(wildcards.desnet, wildcards.ancestor)
    if plan.study.initialisers[wildcards.init].teacher == "shared":
        teacher = plan.study.teacher(wildcards.ancestor, larger)
    settings = plan.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    return _taught(plan, wildcards.ancestor, teacher, settings, inherits=True)


def distill_desnet_settings(plan: "Plan", wildcards) -> dict:
    settings = plan.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    return _distilled(plan, wildcards.ancestor, plan.study.desnets[wildcards.desnet].shape, settings)


def _taught(plan: "Plan", ancestor: str, teacher: str | None, settings: Distill, inherits: bool) -> Parents:
    """What every distillation reads."""
    ordered = inherits and not teacher and plan.study.ancestors[ancestor].select in ("rank", "rotate")
    return {
        "teacher": plan.teacher(ancestor, teacher),
        **({"ordered": f"{plan.results}/ordered/{ancestor}"} if ordered else {}),
        "tokenizer": plan.tokenizer,
        "data": {name: plan.data(name) for name in settings.data},
    }


def _distilled(plan: "Plan", ancestor: str, shape: Shape, settings: Distill) -> dict:
    return {
        "architecture": plan.study.architecture,
        "shape": shape,
        "select": plan.study.ancestors[ancestor].select,
        "training": settings,
    }


def teacher_signal_parents(plan: "Plan", wildcards) -> Parents:
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    data = _shared_settings(plan, wildcards).data
    return {"teacher": plan.teacher(wildcards.ancestor, teacher), "data": {name: plan.data(name) for name in data}}


def teacher_signal_settings(plan: "Plan", wildcards) -> dict:
    settings = _shared_settings(plan, wildcards)
    return {
        "architecture": plan.study.architecture,
        "top_k": settings.signal,
        "max_length": settings.max_length,
    }


def _shared_settings(plan: "Plan", wildcards) -> Distill:
    """Those of any student of a teacher that uses its signal; the study is refused where they differ."""
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    students = plan.study.taught_by(wildcards.ancestor, teacher)
    found = [plan.study.distill_settings(wildcards.ancestor, member) for member in students]
    return next(settings for settings in found if settings.signal)


def assemble_parents(plan: "Plan", wildcards) -> Parents:
    study, chain = plan.study, f"{plan.results}/chain/{wildcards.ancestor}"
    initialiser = study.initialisers[wildcards.init]
    smaller, larger = study.neighbours(wildcards.desnet, wildcards.ancestor)
    parents: Parents = {"tokenizer": plan.tokenizer}
    if initialiser.kind == "linit" and initialiser.method != "cut" and smaller and larger:
        parents |= {"smaller": f"{chain}/{smaller}", "larger": f"{chain}/{larger}"}
        if study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor) == "search":
            parents["corpus"] = plan.data(study.perplexity[0])
    elif initialiser.kind in ("auto-learngene", "vanilla-learngene"):
        parents["source"] = plan.origin(wildcards.ancestor)
    elif initialiser.kind != "rand":
        cloned = study.cloned(wildcards.desnet, wildcards.ancestor)
        member = {"single": smaller, "hypercloning": cloned}.get(initialiser.kind, larger)
        parents["source"] = f"{chain}/{member}"
    return parents


def assemble_settings(plan: "Plan", wildcards) -> dict:
    initialiser = plan.study.initialisers[wildcards.init]
    ancestor = plan.study.ancestors.get(wildcards.ancestor)  # random DesNets have none
    return {
        "architecture": plan.study.architecture,
        "shape": plan.study.desnets[wildcards.desnet].shape,
        "kind": initialiser.kind,
        "method": initialiser.method,
        "alpha": plan.study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor),
        "compensate": initialiser.compensate,
        "select": ancestor.select if ancestor else "even",
    }


def recover_parents(plan: "Plan", wildcards) -> Parents:
    assembled = f"desnets/{wildcards.ancestor}/{wildcards.desnet}/{wildcards.init}/0"
    return {"model": f"{plan.results}/{assembled}", "corpus": plan.data(plan.study.stages.recover.corpus)}


def recover_settings(plan: "Plan", wildcards) -> BaseModel:
    return plan.study.stages.recover.model_copy(update={"tokens": plan.budgets[wildcards.budget]})


def evaluate_parents(plan: "Plan", wildcards) -> Parents:
    parents: Parents = {"model": f"{plan.results}/{wildcards.model}"}
    if plan.study.perplexity:
        parents["corpus"] = {name: plan.data(name) for name in plan.study.perplexity}
    tasks = plan.tasks_of(wildcards.model)
    if tasks:
        parents["task"] = {name: plan.data(task.instructions) for name, task in tasks.items()}
    if trained := {name: plan.data(task.train) for name, task in tasks.items() if task.train}:
        parents["train"] = trained
    return parents


def evaluate_settings(plan: "Plan", wildcards) -> dict:
    return {"tasks": plan.tasks_of(wildcards.model)}


def stack_parents(plan: "Plan", wildcards) -> Parents:
    stack = plan.study.stacks[wildcards.stack]
    return {
        "model": f"{plan.results}/chain/{stack.ancestor}/{stack.member}",
        "teacher": plan.origin(stack.ancestor),
        "task": {name: plan.data(plan.study.tasks[name].instructions) for name in stack.tasks},
    }


def stack_settings(plan: "Plan", wildcards) -> dict:
    tasks = plan.tasks_of(f"stacks/{wildcards.stack}")
    return {
        "stack": plan.study.stacks[wildcards.stack],
        "tasks": tasks,
        "positions": plan.study.architecture.positions,
    }


def publish_parents(plan: "Plan", wildcards) -> Parents:
    model, evaluated = f"{plan.results}/{wildcards.model}", evaluate_parents(plan, wildcards)
    return {
        **evaluated,
        "score": f"{plan.results}/scores/{wildcards.model}",
        "made-of": {folder.removeprefix(f"{plan.results}/"): folder for folder in plan.lineage(model)[:-1]},
    }


def publish_settings(plan: "Plan", wildcards) -> dict:
    study, (kind, ancestor, name, *_) = plan.study, Path(wildcards.model).parts
    datasets = {name: study.corpora[name].dataset for name in study.perplexity}
    datasets |= {name: study.instructions[task.instructions].dataset for name, task in study.tasks.items()}
    scored = {name: plan.datasets[dataset] for name, dataset in datasets.items()}
    named = {plan.fetched[name]: (name, study.models[name]) for name in plan.fetched}
    named |= {plan.datasets[name]: (name, study.datasets[name]) for name in plan.datasets}
    used = {*plan.lineage(f"{plan.results}/{wildcards.model}"), *scored.values()}
    return {
        "study": study.study,
        "path": wildcards.model,
        "ancestor": "" if ancestor == SCRATCH else study.ancestors[ancestor].model,
        "family": study.architecture.family,
        "shape": (study.chain if kind == "chain" else study.desnets)[name].shape,
        "sources": {
            folder: {"name": name, "source": entry.source, "license": entry.license}
            for folder, (name, entry) in named.items()
            if folder in used
        },
        "scored": scored,
        "tasks": study.tasks,
    }


def leakage_parents(plan: "Plan", _: object) -> Parents:
    trained, evaluated = _trained(plan), _evaluated(plan)
    used = sorted({*trained, *evaluated})
    corpora = {name: plan.study.corpora[name].dataset for name in used if name in plan.study.corpora}
    return {
        "instructions": {name: plan.data(name) for name in used if name in plan.study.instructions},
        "corpus": {name: plan.datasets[dataset] for name, dataset in corpora.items()},
    }


def leakage_settings(plan: "Plan", _: object) -> dict:
    trained, evaluated = _trained(plan), _evaluated(plan)
    corpora = [name for name in plan.study.corpora if name in (*trained, *evaluated)]
    datasets = {name: plan.study.datasets[plan.study.corpora[name].dataset] for name in corpora}
    return {"corpora": datasets, "trained": trained, "evaluated": evaluated}


def _trained(plan: "Plan") -> list[str]:
    """Names of the instructions and corpora that models of the study learn from."""
    study, stages = plan.study, plan.study.stages
    named = [getattr(stage, "corpus", None) for stage in (stages.pretrain, stages.recover)]
    named += [getattr(stage, "instructions", None) for stage in (stages.sft, stages.answers)]
    for ancestor in study.ancestors:
        for member in study.members(ancestor):
            named += study.distill_settings(ancestor, member).data
    named += [task.train or task.instructions for task in study.tasks.values() if task.fine_tune]
    return sorted({name for name in named if name})


def _evaluated(plan: "Plan") -> list[str]:
    """Names of those that they are scored on."""
    return sorted({*plan.study.perplexity, *(task.instructions for task in plan.study.tasks.values())})


def report_parents(plan: "Plan", _: object) -> Parents:
    tasks = plan.study.tasks.values()
    used = {*plan.study.perplexity, *(name for task in tasks for name in (task.instructions, task.train) if name)}
    return {
        "score": {model: f"{plan.results}/scores/{model}" for model in plan.models},
        "data": {name: plan.data(name) for name in sorted(used)},
        **({"leakage": f"{plan.results}/leakage"} if _evaluated(plan) and _trained(plan) else {}),
    }


def report_settings(plan: "Plan", _: object) -> BaseModel:
    return plan.study.model_copy(update={"runtime": type(plan.study.runtime)()})


def exhibit_parents(plan: "Plan", wildcards) -> Parents:
    metric, paths = exhibits.paper()[wildcards.exhibit]["metric"], exhibits.models(plan, wildcards.exhibit).values()
    if metric == "parameters":
        return {}
    paths = [f"scores/{path}" if metric == "rouge_l" else path for path in dict.fromkeys(paths)]
    return {"made-of": {path: f"{plan.results}/{path}" for path in paths}}


def exhibit_settings(plan: "Plan", wildcards) -> dict:
    """Of a whole study only what the table or figure shows, so that it is made again when that changes."""
    shown, found = exhibits.paper()[wildcards.exhibit], exhibits.models(plan, wildcards.exhibit)
    study, named = plan.study, {name for cell in exhibits.all_cells(shown) for name in cell.names.values()}
    sizes = {}
    if shown["metric"] == "parameters":
        shapes = {path: study.desnets[path.rpartition("/")[2]].shape for path in found.values()}
        sizes = {
            path: {**shape.model_dump(), "parameters": round(study.parameters(shape) / 1e6, 3)}
            for path, shape in shapes.items()
        }
    return {
        "exhibit": wildcards.exhibit,
        "shown": shown,
        "models": found,
        "stand_ins": {name: study.paper[name] for name in sorted(named) if name in study.paper},
        "sizes": sizes,
    }
