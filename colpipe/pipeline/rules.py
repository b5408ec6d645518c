"""The rule table: one row for each rule of workflow/rules/, in the order of the work (no torch here).

A new stage is a row here, a module in `colpipe/stages/` and a short rule in workflow/rules/ (CONTRIBUTING.md has the
recipe). Everything else reads this table: what Snakemake is told, what jobs ask a scheduler for, the estimate, the drawing
and the lineages on the report page, the time left. The profiles are checked against it.
"""

from pathlib import Path
from types import SimpleNamespace as Wildcards

from colpipe.config.constants import SCRATCH
from colpipe.config.layout import Layout
from colpipe.config.paper import paper
from colpipe.config.parts import Dataset, Model
from colpipe.cost import workload
from colpipe.pipeline import model_inputs as model
from colpipe.pipeline import score_inputs as score
from colpipe.pipeline.graph import PlannedJob, Rule, lineage
from colpipe.pipeline.model_inputs import Parents


def publish_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    made_of = list(_descent(layout, wildcards.model))[:-1]
    exported = {"exported": f"{layout.results}/exported/{wildcards.model}"}
    above = f"{layout.results}/scores/{layout.compared_with(wildcards.model)}"
    descends = Path(wildcards.model).parts[1] != SCRATCH
    return {
        **score.evaluate_parents(layout, wildcards),
        **({"origin-score": above} if descends and layout.study.stages.evaluate.continued else {}),
        **(exported if layout.study.stages.export.reported and wildcards.model.startswith("desnets/") else {}),
        "score": f"{layout.results}/scores/{wildcards.model}",
        **({"compared": above} if any(task.likelihood for task in layout.tasks_of(wildcards.model).values()) else {}),
        "made-of": {folder.removeprefix(f"{layout.results}/"): folder for folder in made_of},
    }


def publish_settings(layout: Layout, wildcards: Wildcards) -> dict:
    study, (kind, ancestor, name, *_) = layout.study, Path(wildcards.model).parts
    datasets = {name: study.corpora[name].dataset for name in study.perplexity if study.corpora[name].dataset}
    datasets |= {name: study.instructions[task.instructions].dataset for name, task in study.tasks.items()}
    scored = {name: layout.datasets[dataset] for name, dataset in datasets.items()}
    named: dict[str, tuple[str, Model | Dataset]] = {
        layout.fetched[name]: (name, study.models[name]) for name in layout.fetched
    }
    named |= {layout.datasets[name]: (name, study.datasets[name]) for name in layout.datasets}
    made = [layout.data(name) for name in study.perplexity if name not in datasets]  # of several sources
    used = {*_descent(layout, wildcards.model), *lineage(RULES, layout, *made), *scored.values()}
    return {
        "study": study.study,
        "path": wildcards.model,
        "ancestor": "" if ancestor == SCRATCH else study.ancestors[ancestor].model,
        "family": study.architecture.family,
        "shape": (study.chain if kind == "chain" else study.desnets)[name].shape,
        "sources": {
            folder: {"name": name, "source": entry.source, "license": entry.license, "terms": entry.terms}
            for folder, (name, entry) in named.items()
            if folder in used
        },
        "scored": scored,
        "tasks": study.tasks,
        "template": _template(layout, wildcards.model),
        "instructed": _is_instructed(layout, wildcards.model),
    }


MEASURES = ("ancestor",)  # roles of parents that a job only measures: nothing of them is in what it makes


def _descent(layout: Layout, model: str) -> dict[str, PlannedJob]:
    """Folder → job of all that a model is made of, and of itself, last."""
    return lineage(RULES, layout, f"{layout.results}/{model}", without=MEASURES)


INSTRUCTS = ("prepare_instructions", "bridge_answers")  # whoever descends from these learned to answer


def _is_instructed(layout: Layout, model: str) -> bool:
    """Whether a model, or one whose weights it has, learned to answer; who wrote its text does not count."""
    jobs = lineage(RULES, layout, f"{layout.results}/{model}", without=(*MEASURES, "writer")).values()
    return any(job.rule in INSTRUCTS for job in jobs)


def _template(layout: Layout, model: str) -> str:
    """The chat template that a model is published with: the `paper`'s prompts where it learned them, or the tokenizer's
    `own`, if it has one."""
    return "paper" if layout.study.tokenizer.prompts == "paper" and _is_instructed(layout, model) else "own"


def export_parents(layout: Layout, wildcards: Wildcards) -> Parents:
    return {"model": f"{layout.results}/{wildcards.model}"}


def export_settings(layout: Layout, wildcards: Wildcards) -> dict:
    export = layout.study.stages.export
    return {
        "name": "-".join(Path(wildcards.model).parts[2:]),
        "types": export.types,
        "template": _template(layout, wildcards.model),
        "optional": export.reported,
    }


ROWS = (
    Rule("fetch_model", "{resources}/models/{staged}", "fetch"),
    Rule("fetch_dataset", "{resources}/data/{staged}", "fetch"),
    Rule(
        "train_tokenizer",
        "{results}/tokenizer",
        "light",
        model.train_tokenizer_parents,
        model.train_tokenizer_settings,
    ),
    Rule(
        "prepare_corpus",
        "{results}/data/{corpus}",
        "light",
        model.prepare_corpus_parents,
        model.prepare_corpus_settings,
        allowed=lambda layout: {"corpus": layout.corpora("dataset")},
    ),
    Rule(
        "prepare_instructions",
        "{results}/data/{instructions}",
        "light",
        model.prepare_instructions_parents,
        model.prepare_instructions_settings,
        allowed=lambda layout: {"instructions": layout.study.instructions},
    ),
    Rule(
        "pretrain",
        "{results}/pretrained/{start}",
        "data-parallel",
        model.pretrain_parents,
        model.pretrain_settings,
        workload.pretrain,
    ),
    Rule("sft", "{results}/sft/{start}", "data-parallel", model.sft_parents, model.sft_settings, workload.sft),
    Rule(
        "write_corpus",
        "{results}/data/{corpus}",
        "accelerator",
        model.write_corpus_parents,
        model.write_corpus_settings,
        workload.write_corpus,
        allowed=lambda layout: {"corpus": layout.corpora("written")},
    ),
    Rule(
        "mix_corpus",
        "{results}/data/{corpus}",
        "light",
        model.mix_corpus_parents,
        model.mix_corpus_settings,
        allowed=lambda layout: {"corpus": layout.corpora("data")},
    ),
    Rule(
        "bridge_answers",
        "{results}/answers/{ancestor}",
        "accelerator",
        model.bridge_answers_parents,
        model.bridge_answers_settings,
        workload.bridge_answers,
    ),
    Rule(
        "bridge",
        "{results}/bridges/{ancestor}",
        "data-parallel",
        model.bridge_parents,
        model.bridge_settings,
        workload.bridge,
    ),
    Rule(
        "order",
        "{results}/ordered/{ancestor}",
        "accelerator",
        model.order_parents,
        model.order_settings,
        workload.order,
    ),
    Rule(
        "teacher_signal",
        "{results}/signals/{ancestor}/{teacher}",
        "accelerator",
        model.teacher_signal_parents,
        model.teacher_signal_settings,
        workload.teacher_signal,
    ),
    Rule(
        "distill",
        "{results}/chain/{ancestor}/{member}",
        "data-parallel",
        model.distill_parents,
        model.distill_settings,
        workload.distill,
    ),
    Rule(
        "distill_desnet",
        "{results}/desnets/{ancestor}/{desnet}/{init}/0",
        "data-parallel",
        model.distill_desnet_parents,
        model.distill_desnet_settings,
        workload.distill,
        stage="distill",
        allowed=lambda layout: {"init": layout.initialisers(distilled=True)},
    ),
    Rule(
        "assemble",
        "{results}/desnets/{ancestor}/{desnet}/{init}/0",
        "light",
        model.assemble_parents,
        model.assemble_settings,
        workload.assemble,
        allowed=lambda layout: {"init": layout.initialisers(distilled=False)},
    ),
    Rule(
        "recover",
        "{results}/desnets/{ancestor}/{desnet}/{init}/{budget}",
        "data-parallel",
        model.recover_parents,
        model.recover_settings,
        workload.recover,
    ),
    Rule(
        "stack",
        "{results}/scores/stacks/{stack}",
        "accelerator",
        score.stack_parents,
        score.stack_settings,
        workload.stack,
    ),
    Rule(
        "evaluate",
        "{results}/scores/{model}",
        "accelerator",
        score.evaluate_parents,
        score.evaluate_settings,
        workload.evaluate,
    ),
    Rule("leakage", "{results}/leakage", "light", score.leakage_parents, score.leakage_settings),
    Rule(
        "exhibit",
        "{results}/paper/{exhibit}",
        "light",
        score.exhibit_parents,
        score.exhibit_settings,
        allowed=lambda layout: {"exhibit": paper()},
    ),
    Rule("report", "{results}", "light", score.report_parents, score.report_settings, file="report.html"),
    Rule(
        "publish",
        "{results}/published/{model}",
        "light",
        publish_parents,
        publish_settings,
        file="README.md",
    ),
    Rule("export", "{results}/exported/{model}", "light", export_parents, export_settings),
)
RULES = {rule.name: rule for rule in ROWS}
