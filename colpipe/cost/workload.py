"""What every job of a study has to do, from settings and from data as far as it is there: tokens, operations, memory.

One source for what jobs ask a machine for (`needs.py`) and for what is told before a run (`estimate.py`). Nothing is loaded,
and there is no torch here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from colpipe.cost.formulas import REAL
from colpipe.cost.inputs import (
    ASSUMED,
    AT_MOST,
    Data,
    Model,
    corpus,
    instructions,
    mixed,
    model_in,
    of_shape,
    sample_rows,
    worst,
)
from colpipe.cost.passes import VALIDATION_ITEMS, Work, distillation, fused, generating, pretraining, scoring, training
from colpipe.jobs import OUTPUTS, ROOTS, maker
from colpipe.plan import Plan
from colpipe.stage_inputs import ORIGIN
from colpipe.stage_settings import Task

SCORED = 4096  # tokens of a batch for perplexity
CHOICES = 4  # of a row, where no row is there yet
SEARCHED, CANDIDATES = 8192, 33  # `alpha: search`: tokens for each candidate, and how many there are
ROLES = ("teacher", "ordered", "smaller", "larger", "source", "model", "student")


class Job(NamedTuple):
    """A job of the study: its rule, its wildcards, the folder that it makes."""

    rule: str
    wildcards: SimpleNamespace
    folder: str


def jobs(plan: Plan, folders: Iterable[str] | None = None) -> list[Job]:
    """Every job that makes these folders, inputs first; of the whole study, where none are given."""
    if folders is None:
        folders = [folder for _, folder in plan.parents("report")]
    return [Job(*maker(plan, folder), folder) for folder in plan.lineage(*folders)]


def work(plan: Plan, rule: str, wildcards: object) -> Work:
    """What a job does; nothing that counts where no model is at work."""
    parents = dict(plan.parents(rule, wildcards)) if rule not in ROOTS else {}
    builder = _BUILDERS.get(rule)
    models = [model_in(plan, folder) for role, folder in parents.items() if role in ROLES]
    done = builder(plan, parents, wildcards) if builder else Work()
    if not done.trained:
        done = replace(done, read=sum(model.parameters for model in models))
    return done


def _pretrain(plan: Plan, parents: dict, wildcards) -> Work:
    study, settings = plan.study, plan.study.stages.pretrain
    owner = {**study.models, **study.chain}[wildcards.start]
    return pretraining(plan, of_shape(study.architecture, owner.shape), settings)


def _recover(plan: Plan, parents: dict, wildcards) -> Work:
    return pretraining(plan, model_in(plan, parents["model"]), plan.settings_of("recover", wildcards))


def _sft(plan: Plan, parents: dict, wildcards) -> Work:
    settings = plan.study.stages.sft
    model = model_in(plan, parents["model"])
    foreign = model.vocabulary != plan.study.architecture.vocabulary
    data, validation = (
        instructions(plan, settings.instructions, split, foreign).cut(settings.max_length)
        for split in ("train", "validation")
    )
    return training(model, [data], settings, fused(plan.study.runtime), [validation])


def _answered(plan: Plan, foreign: bool = False) -> Data:
    """The prompts that an ancestor answers, with answers as long as they may be."""
    settings = plan.study.stages.answers
    data = instructions(plan, settings.instructions, "train", foreign)
    lengths = tuple((asked, settings.max_new_tokens) for asked, _ in data.lengths)
    if not settings.prompts:
        return Data(data.rows, lengths, worst(AT_MOST, data.bound))
    return Data(settings.prompts if data.bound == ASSUMED else min(settings.prompts, data.rows), lengths, AT_MOST)


def _bridge_answers(plan: Plan, parents: dict, wildcards) -> Work:
    settings, data = plan.study.stages.answers, _answered(plan, foreign=True)
    model = model_in(plan, parents["model"])
    done = generating(model, data, data.rows, settings.max_new_tokens, settings.batch_size)
    return replace(done, precision=settings.precision)


def _bridge(plan: Plan, parents: dict, wildcards) -> Work:
    settings, data = plan.study.stages.bridge, _answered(plan)
    held_out = min(VALIDATION_ITEMS, data.rows // 10)
    data, validation = (replace(data, rows=rows).cut(settings.max_length) for rows in (data.rows - held_out, held_out))
    return training(model_in(plan, parents["model"]), [data], settings, fused(plan.study.runtime), [validation])


def _order(plan: Plan, parents: dict, wildcards) -> Work:
    settings, model = plan.study.stages.order, model_in(plan, parents["model"])
    data = corpus(plan, settings.corpus, "train", settings.max_length, settings.tokens)
    once = scoring([model], [data], 8, everywhere=True)
    return once + once + once  # measured, and its loss before and after


def _distill(plan: Plan, parents: dict, wildcards) -> Work:
    study = plan.study
    settings = study.distill_settings(wildcards.ancestor, wildcards.member)
    student = of_shape(study.architecture, study.chain[wildcards.member].shape)
    teacher = None if "signal" in parents else model_in(plan, parents["teacher"])
    return distillation(plan, student, teacher, settings, study.elastic(wildcards.ancestor, wildcards.member))


def _distill_desnet(plan: Plan, parents: dict, wildcards) -> Work:
    study = plan.study
    settings = study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    student = of_shape(study.architecture, study.desnets[wildcards.desnet].shape)
    return distillation(plan, student, model_in(plan, parents["teacher"]), settings)


def _teacher_signal(plan: Plan, parents: dict, wildcards) -> Work:
    settings = plan.settings_of("teacher_signal", wildcards)
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    students = plan.study.taught_by(wildcards.ancestor, teacher)
    names = plan.study.distill_settings(wildcards.ancestor, students[0]).data
    batch, model = plan.study.runtime.micro_batch or 8, model_in(plan, parents["teacher"])
    data = mixed(plan, names, "train", settings["max_length"])
    held = [
        replace(each, rows=min(VALIDATION_ITEMS, each.rows))
        for each in mixed(plan, names, "validation", settings["max_length"])
    ]
    return scoring([model], data, batch) + scoring([model], held, batch)


def _assemble(plan: Plan, parents: dict, wildcards) -> Work:
    model = of_shape(plan.study.architecture, plan.study.desnets[wildcards.desnet].shape)
    if "corpus" not in parents:
        return Work(memory=REAL * model.parameters)
    block = min(plan.study.architecture.positions, SEARCHED)
    once = scoring([model], [Data(SEARCHED // block, ((1, block - 1),))], SCORED // block, everywhere=True)
    return replace(once, tokens=CANDIDATES * once.tokens, flops=CANDIDATES * once.flops, memory=3 * once.memory)


def _evaluate(plan: Plan, parents: dict, wildcards) -> Work:
    study, model = plan.study, model_in(plan, parents["model"])
    longest_row = model.sizes["position"] if model.sizes else study.architecture.positions
    done, tuned = Work(memory=REAL * model.parameters), set()
    for name in study.perplexity:
        data = corpus(plan, name, "test", longest_row)
        done += scoring([model], [data], max(1, SCORED // longest_row), everywhere=True)
    for task in plan.tasks_of(wildcards.model).values():
        key = (task.train or task.instructions, repr(task.fine_tune))
        if task.fine_tune and key not in tuned:
            tuned.add(key)
            data = instructions(plan, key[0], "train").cut(task.fine_tune.max_length)
            done += training(model, [data], task.fine_tune, fused(study.runtime))
        done += _task(plan, model, task)
    return done


def _stack(plan: Plan, parents: dict, wildcards) -> Work:
    """Every step is fine-tuned on what the teacher writes, and writes for the test rows; the last one answers."""
    study, settings = plan.study, plan.study.stacks[wildcards.stack]
    model, teacher, done = model_in(plan, parents["model"]), model_in(plan, parents["teacher"]), Work()
    for task in plan.tasks_of(f"stacks/{wildcards.stack}").values():
        train, test = (instructions(plan, task.instructions, split) for split in ("train", "test"))
        train = replace(train, rows=min(train.rows, settings.train_rows))
        for step in range(len(settings.steps) + 1):
            learnt, asked = (_with_notes(data, step * settings.max_new_tokens) for data in (train, test))
            new = settings.max_new_tokens if step < len(settings.steps) else task.max_new_tokens
            done += training(
                model, [learnt.cut(settings.fine_tune.max_length)], settings.fine_tune, fused(study.runtime)
            )
            done += generating(model, asked, asked.rows, new, 64)
            if step < len(settings.steps):
                done += generating(teacher, learnt, learnt.rows, new, 64)
    return done


def _with_notes(data: Data, tokens: int) -> Data:
    """Prompts with so many tokens more, at most."""
    lengths = tuple((asked + tokens, answer) for asked, answer in data.lengths)
    return replace(data, lengths=lengths, bound=worst(AT_MOST, data.bound))


def _task(plan: Plan, model: Model, task: Task) -> Work:
    """Answers to the test rows, and the likelihood of their choices."""
    data = instructions(plan, task.instructions, "test")
    done = generating(model, data, task.samples * data.rows, task.max_new_tokens, 64)
    if task.likelihood:
        path = Path(plan.data(task.instructions)) / "test.jsonl"
        choices = CHOICES
        if path.exists():
            rows = sample_rows(path, path.stat().st_mtime_ns)
            choices = sum(len(row.get("choices", ())) for row in rows) / max(1, len(rows))
        done += scoring([model], [replace(data, rows=choices * data.rows)], 32, everywhere=True)
    return done


_BUILDERS = {
    "pretrain": _pretrain,
    "sft": _sft,
    "bridge_answers": _bridge_answers,
    "bridge": _bridge,
    "order": _order,
    "distill": _distill,
    "distill_desnet": _distill_desnet,
    "teacher_signal": _teacher_signal,
    "assemble": _assemble,
    "recover": _recover,
    "stack": _stack,
    "evaluate": _evaluate,
}


def work_by_job(plan: Plan, folders: Iterable[str] | None = None) -> Iterator[tuple[Job, Work]]:
    """Every job of a study, or that makes these folders, and what it does; rule by rule in the order of the workflow."""
    rules = list(OUTPUTS)
    for job in sorted(jobs(plan, folders), key=lambda job: rules.index(job.rule)):
        yield job, work(plan, job.rule, job.wildcards)
