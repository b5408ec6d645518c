"""What the jobs that make data and models read, and with which settings, rule by rule (no torch here).

For each rule there are two functions, `<rule>_parents` and `<rule>_settings`; both take the layout and the job's wildcards.
Parents are written once, as {flag: folder} or {flag: {name: folder}}; `plan.py` turns them into what Snakemake wants.
"""

from collections import Counter
from types import SimpleNamespace as Wildcards

from pydantic import BaseModel

from colpipe.config.constants import ORIGIN, SCRATCH
from colpipe.config.layout import Layout
from colpipe.config.parts import Shape
from colpipe.config.stages import Distill

Parents = dict[str, str | dict[str, str]]


def train_tokenizer_parents(layout: Layout, _: Wildcards) -> Parents:
    return {"dataset": layout.datasets[layout.study.corpora[layout.study.tokenizer.train].dataset]}


def train_tokenizer_settings(layout: Layout, _: Wildcards) -> dict:
    study = layout.study
    return {
        "dataset": study.datasets[study.corpora[study.tokenizer.train].dataset],
        "vocabulary": study.architecture.vocabulary,
        "positions": study.architecture.positions,
    }


def prepare_corpus_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    dataset = layout.study.corpora[wildcards.corpus].dataset
    return {"dataset": layout.datasets[dataset], "tokenizer": layout.tokenizer}


def prepare_corpus_settings(layout: Layout, wildcards: Wildcards) -> BaseModel:
    return layout.study.datasets[layout.study.corpora[wildcards.corpus].dataset]


def mix_corpus_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    parts = layout.study.corpora[wildcards.corpus].shares
    return {"data": {name: layout.data(name) for name in parts}, "tokenizer": layout.tokenizer}


def mix_corpus_settings(layout: Layout, wildcards: Wildcards) -> dict:
    return {"shares": layout.study.corpora[wildcards.corpus].shares}


def write_corpus_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    written = layout.study.corpora[wildcards.corpus].written
    return {
        "writer": f"{layout.results}/sft/{layout.study.ancestors[written.ancestor].model}",
        "openings": layout.data(written.openings),
        "tokenizer": layout.tokenizer,
    }


def write_corpus_settings(layout: Layout, wildcards: Wildcards) -> BaseModel:
    return layout.study.corpora[wildcards.corpus].written


def prepare_instructions_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    dataset = layout.study.instructions[wildcards.instructions].dataset
    return {"dataset": layout.datasets[dataset], "tokenizer": layout.tokenizer}


def prepare_instructions_settings(layout: Layout, wildcards: Wildcards) -> dict:
    instructions = layout.study.instructions[wildcards.instructions]
    return {
        "dataset": layout.study.datasets[instructions.dataset],
        "instructions": instructions,
        "prompts": layout.study.tokenizer.prompts,
    }


def pretrain_parents(layout: Layout, _: Wildcards) -> Parents:
    return {"corpus": layout.data(layout.study.stages.pretrain.corpus), "tokenizer": layout.tokenizer}


def pretrain_settings(layout: Layout, wildcards: Wildcards) -> dict:
    owner = layout.study.models.get(wildcards.start) or layout.study.chain[wildcards.start]
    return {
        "architecture": layout.study.architecture,
        "shape": owner.shape,
        "training": layout.study.stages.pretrain,
    }


def sft_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    sft = layout.study.stages.sft
    instructions = {"instructions": layout.data(sft.instructions)} if sft else {}
    return {"model": layout.start(wildcards.start), **instructions}


def sft_settings(layout: Layout, wildcards: Wildcards) -> dict:
    return {"training": layout.study.stages.sft, "prompts": _prompts(layout, wildcards.start)}


def _prompts(layout: Layout, model: str) -> str | None:
    """How a bridged ancestor is asked, which has a tokenizer of its own; None: as the chain is."""
    return layout.study.models[model].prompts if layout.study.is_bridged(model) else None


def bridge_answers_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    return {
        "model": f"{layout.results}/sft/{layout.study.ancestors[wildcards.ancestor].model}",
        "instructions": layout.data(layout.study.stages.answers.instructions),
    }


def bridge_answers_settings(layout: Layout, wildcards: Wildcards) -> dict:
    prompts = _prompts(layout, layout.study.ancestors[wildcards.ancestor].model)
    return {"answers": layout.study.stages.answers, "prompts": prompts}


def bridge_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    bridge = layout.study.ancestors[wildcards.ancestor].bridge
    return {"model": layout.start(bridge), "answers": f"{layout.results}/answers/{wildcards.ancestor}"}


def bridge_settings(layout: Layout, _: Wildcards) -> BaseModel:
    return layout.study.stages.bridge


def order_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    return {"model": layout.origin(wildcards.ancestor), "corpus": layout.data(layout.study.stages.order.corpus)}


def order_settings(layout: Layout, wildcards: Wildcards) -> dict:
    return {
        "select": layout.study.ancestors[wildcards.ancestor].select,
        "tied": layout.study.architecture.is_tied,
        "measuring": layout.study.stages.order,
    }


def distill_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    study, names = layout.study, (wildcards.ancestor, wildcards.member)
    settings, before, begins = study.distill_settings(*names), study.teacher(*names), study.start(*names)
    start = {"pretrained": study.chain[wildcards.member].model, "scratch": wildcards.member}.get(begins)
    signal = f"{layout.results}/signals/{wildcards.ancestor}/{before or ORIGIN}" if settings.signal else None
    return {
        **_taught(layout, wildcards.ancestor, before, settings, inherits=study.inherits(*names)),
        **({"corpus": layout.data(study.stages.fit.corpus)} if begins == "fit" else {}),
        **({"student": f"{layout.results}/sft/{start}"} if start else {}),
        **({"signal": signal} if signal else {}),
    }


def distill_settings(layout: Layout, wildcards: Wildcards) -> dict:
    settings = layout.study.distill_settings(wildcards.ancestor, wildcards.member)
    distilled = _distilled(layout, wildcards.ancestor, layout.study.chain[wildcards.member].shape, settings)
    fit = {"fit": layout.study.stages.fit} if layout.study.start(wildcards.ancestor, wildcards.member) == "fit" else {}
    return {**distilled, **fit, "elastic": layout.study.elastic(wildcards.ancestor, wildcards.member)}


def distill_desnet_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    teacher, (_, larger) = None, layout.study.neighbours(wildcards.desnet, wildcards.ancestor)
    if layout.study.initialisers[wildcards.init].teacher == "shared":
        teacher = layout.study.teacher(wildcards.ancestor, larger)
    settings = layout.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    return _taught(layout, wildcards.ancestor, teacher, settings, inherits=True)


def distill_desnet_settings(layout: Layout, wildcards: Wildcards) -> dict:
    settings = layout.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    return _distilled(layout, wildcards.ancestor, layout.study.desnets[wildcards.desnet].shape, settings)


def _taught(layout: Layout, ancestor: str, teacher: str | None, settings: Distill, inherits: bool) -> Parents:
    """What every distillation reads."""
    ordered = inherits and not teacher and layout.study.ancestors[ancestor].select in ("rank", "rotate")
    return {
        "teacher": layout.teacher(ancestor, teacher),
        **({"ordered": layout.ordered(ancestor)} if ordered else {}),
        "tokenizer": layout.tokenizer,
        "data": {name: layout.data(name) for name in settings.names},
    }


def _distilled(layout: Layout, ancestor: str, shape: Shape, settings: Distill) -> dict:
    return {
        "architecture": layout.study.architecture,
        "shape": shape,
        "select": layout.study.ancestors[ancestor].select,
        "training": settings,
    }


def teacher_signal_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    data = {name: layout.data(name) for name in _shared_settings(layout, wildcards).names}
    return {"teacher": layout.teacher(wildcards.ancestor, teacher), "data": data}


def teacher_signal_settings(layout: Layout, wildcards: Wildcards) -> dict:
    settings = _shared_settings(layout, wildcards)
    return {
        "architecture": layout.study.architecture,
        "top_k": settings.signal,
        "max_length": settings.max_length,
        "precision": settings.precision,
        **({"weights": settings.weights} if settings.weights else {}),
    }


def _shared_settings(layout: Layout, wildcards: Wildcards) -> Distill:
    """Those of any student of a teacher that uses its cached log-probabilities; the study is refused where they differ."""
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    students = layout.study.students_of(wildcards.ancestor, teacher)
    found = [layout.study.distill_settings(wildcards.ancestor, member) for member in students]
    return next(settings for settings in found if settings.signal)


def assemble_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    study, chain = layout.study, f"{layout.results}/chain/{wildcards.ancestor}"
    initialiser = study.initialisers[wildcards.init]
    smaller, larger = study.neighbours(wildcards.desnet, wildcards.ancestor)
    parents: Parents = {"tokenizer": layout.tokenizer}
    if initialiser.kind == "linit" and initialiser.method not in ("cut", "fit") and smaller and larger:
        parents |= {"smaller": f"{chain}/{smaller}", "larger": f"{chain}/{larger}"}
        if study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor) == "search":
            parents["corpus"] = layout.data(study.perplexity[0])
    elif initialiser.kind in ("auto-learngene", "vanilla-learngene"):
        parents["source"] = layout.origin(wildcards.ancestor)
    elif initialiser.kind != "rand":
        cloned = study.hypercloning_source(wildcards.desnet, wildcards.ancestor)
        member = {"single": smaller, "hypercloning": cloned}.get(initialiser.kind, larger)
        parents["source"] = f"{chain}/{member}"
        if study.fits(wildcards.init):
            parents["corpus"] = layout.data(study.stages.fit.corpus)
    return parents


def assemble_settings(layout: Layout, wildcards: Wildcards) -> dict:
    initialiser = layout.study.initialisers[wildcards.init]
    ancestor = layout.study.ancestors.get(wildcards.ancestor)  # random DesNets have none
    return {
        "architecture": layout.study.architecture,
        "shape": layout.study.desnets[wildcards.desnet].shape,
        "kind": initialiser.kind,
        "method": initialiser.method,
        "alpha": layout.study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor),
        "compensate": initialiser.compensate,
        "select": ancestor.select if ancestor else "even",
        **({"fit": layout.study.stages.fit} if layout.study.fits(wildcards.init) else {}),
    }


def fitted_from(layout: Layout) -> Counter[str]:
    """Folder of a model → how many members and DesNets of the study are cut out of it and fitted to it."""
    study, found = layout.study, Counter[str]()
    for ancestor in study.ancestors:
        for member in study.members(ancestor):
            if study.start(ancestor, member) == "fit":
                found[fit_source(distill_parents(layout, Wildcards(ancestor=ancestor, member=member)))] += 1
        for desnet, init in {(desnet, init) for desnet, init, _ in study.builds_of(ancestor) if study.fits(init)}:
            names = Wildcards(ancestor=ancestor, desnet=desnet, init=init)
            found[fit_source(assemble_parents(layout, names))] += 1
    return found


def fit_source(parents: Parents) -> str:
    """Of the parents of a job that fits a cut, the model that it is cut out of."""
    return next(str(parents[role]) for role in ("ordered", "source", "teacher") if role in parents)


def recover_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    assembled = f"desnets/{wildcards.ancestor}/{wildcards.desnet}/{wildcards.init}/0"
    first, settings = next(iter(layout.study.ancestors)), layout.study.stages.recover
    ancestor = first if wildcards.ancestor == SCRATCH else wildcards.ancestor
    return {
        "model": f"{layout.results}/{assembled}",
        "corpus": layout.data(settings.corpus),
        **({"ancestor": layout.origin(ancestor)} if settings.stops_by_ancestor else {}),
    }


def recover_settings(layout: Layout, wildcards: Wildcards) -> BaseModel:
    return layout.study.stages.recover.model_copy(update={"tokens": layout.budgets[wildcards.budget]})
