"""What the jobs that score and report read, and with which settings, rule by rule (no torch here).

As in `model_inputs.py`: two functions for each rule.
"""

from types import SimpleNamespace as Wildcards

from pydantic import BaseModel

from colpipe.config.corpora import unmixed
from colpipe.config.layout import Layout
from colpipe.config.paper import all_cells, paper
from colpipe.pipeline import exhibits
from colpipe.pipeline.model_inputs import Parents


def evaluate_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    parents: Parents = {"model": f"{layout.results}/{wildcards.model}"}
    if layout.study.perplexity:
        parents["corpus"] = {name: layout.data(name) for name in layout.study.perplexity}
    tasks = layout.tasks_of(wildcards.model)
    if tasks:
        parents["task"] = {name: layout.data(task.instructions) for name, task in tasks.items()}
    if trained := {name: layout.data(task.train) for name, task in tasks.items() if task.train}:
        parents["train"] = trained
    return parents


def evaluate_settings(layout: Layout, wildcards: Wildcards) -> dict:
    scores = layout.study.stages.evaluate
    continued = {"continued": scores.continued, "continued_tokens": scores.continued_tokens} if scores.continued else {}
    text = {key: value for key in ("max_length", "tokens") if (value := getattr(scores, key))}
    return {"tasks": layout.tasks_of(wildcards.model), "precision": scores.precision, **text, **continued}


def stack_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    stack = layout.study.stacks[wildcards.stack]
    return {
        "model": f"{layout.results}/chain/{stack.ancestor}/{stack.member}",
        "teacher": layout.origin(stack.ancestor),
        "task": {name: layout.data(layout.study.tasks[name].instructions) for name in stack.tasks},
    }


def stack_settings(layout: Layout, wildcards: Wildcards) -> dict:
    tasks = layout.tasks_of(f"stacks/{wildcards.stack}")
    return {
        "stack": layout.study.stacks[wildcards.stack],
        "tasks": tasks,
        "positions": layout.study.architecture.positions,
    }


def leakage_parents(layout: Layout, _: Wildcards) -> Parents:
    trained, evaluated = _trained(layout), _evaluated(layout)
    used = sorted({*trained, *evaluated})
    corpora = {name: layout.study.corpora[name].dataset for name in used if name in layout.study.corpora}
    written = {name: layout.data(name) for name, dataset in corpora.items() if not dataset}
    return {
        "instructions": {name: layout.data(name) for name in used if name in layout.study.instructions},
        "corpus": {name: layout.datasets[dataset] for name, dataset in corpora.items() if dataset},
        **({"written": written, "tokenizer": layout.tokenizer} if written else {}),
    }


def leakage_settings(layout: Layout, _: Wildcards) -> dict:
    trained, evaluated = _trained(layout), _evaluated(layout)
    corpora = [name for name in layout.corpora("dataset") if name in (*trained, *evaluated)]
    datasets = {name: layout.study.datasets[layout.study.corpora[name].dataset] for name in corpora}
    return {"corpora": datasets, "trained": trained, "evaluated": evaluated}


def _trained(layout: Layout) -> list[str]:
    """Names of the instructions and corpora that models of the study learn from, without mixtures: what these mix."""
    study, stages = layout.study, layout.study.stages
    named = [getattr(stage, "corpus", None) for stage in (stages.pretrain, stages.recover)]
    named += [stages.fit.corpus] if stages.fit and study.has_fitted() else []
    named += [getattr(stage, "instructions", None) for stage in (stages.sft, stages.answers)]
    for ancestor in study.ancestors:
        for member in study.members(ancestor):
            named += study.distill_settings(ancestor, member).names
        for _, init, _ in study.builds_of(ancestor):
            if study.initialisers[init].kind == "distilled":
                named += study.desnet_distill_settings(ancestor, init).names
    named += [task.train or task.instructions for task in study.tasks.values() if task.fine_tune]
    return sorted(unmixed(study, filter(None, named)))


def _evaluated(layout: Layout) -> list[str]:
    """Names of those that they are scored on."""
    scored = [*layout.study.perplexity, *(task.instructions for task in layout.study.tasks.values())]
    return sorted(unmixed(layout.study, scored))


def report_parents(layout: Layout, _: Wildcards) -> Parents:
    tasks = layout.study.tasks.values()
    used = {*layout.study.perplexity, *(name for task in tasks for name in (task.instructions, task.train) if name)}
    exports = layout.exports if layout.study.stages.export.reported else []
    return {
        "score": {model: f"{layout.results}/scores/{model}" for model in layout.models},
        "data": {name: layout.data(name) for name in sorted(used)},
        **({"leakage": f"{layout.results}/leakage"} if _evaluated(layout) and _trained(layout) else {}),
        **({"exported": {path: f"{layout.results}/{path}" for path in exports}} if exports else {}),
    }


def report_settings(layout: Layout, _: Wildcards) -> BaseModel:
    return layout.study.model_copy(update={"runtime": type(layout.study.runtime)()})


def exhibit_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    metric, models = paper()[wildcards.exhibit]["metric"], exhibits.models(layout, wildcards.exhibit)
    if metric == "parameters":
        return {}
    paths = [f"scores/{path}" if metric == "rouge_l" else path for path in dict.fromkeys(models.values())]
    return {"made-of": {path: f"{layout.results}/{path}" for path in paths}}


def exhibit_settings(layout: Layout, wildcards: Wildcards) -> dict:
    """Of a whole study only what the table or figure shows, so that it is made again when that changes."""
    shown, found = paper()[wildcards.exhibit], exhibits.models(layout, wildcards.exhibit)
    study, named = layout.study, {name for cell in all_cells(shown) for name in cell.names.values()}
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
        "vocabulary": study.architecture.vocabulary,
    }
