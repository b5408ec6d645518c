"""Score one model: held-out perplexity, then each task: fine-tune, answer, Rouge-L and accuracy (§4, Appendix C), or but
compare likelihoods.

All tasks of a model are one job, and the fine-tuned weights are not kept. A finished task is not repeated after a kill.
Every mean has a 95 % interval beside it: over blocks for perplexity, over rows for tasks. What the model makes of the
beginnings of some texts, as it is, is kept beside its scores.
"""

import gc
import json
import math
from copy import deepcopy
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel

from colpipe.config.constants import GENERATION_ROWS
from colpipe.config.parts import Precision, Strict
from colpipe.config.stages import Task
from colpipe.data.rows import read_rows
from colpipe.errors import ColpipeError
from colpipe.evaluation.continuations import continuations
from colpipe.evaluation.generation import answer_all
from colpipe.evaluation.perplexity import block_losses, in_units, whole_block
from colpipe.evaluation.remark import worse_than_guessing
from colpipe.evaluation.scores import (
    LIKELIHOODS,
    Values,
    averaged,
    deviations,
    interval,
    percent,
    percent_intervals,
    score_rows,
)
from colpipe.hashing import key_of
from colpipe.hf.models import load_frozen, load_model, require_positions
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.artifacts import write_json
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record
from colpipe.training.supervised import fine_tune


class Settings(Strict):
    tasks: dict[str, Task] = {}
    precision: Precision = "float32"
    max_length: int | None = None
    tokens: int | None = None
    continued: list[str] = []
    continued_tokens: int = 48


def main(job: Job[Settings]) -> None:
    gc.freeze()  # each training collects garbage, which would go through all that the libraries hold
    model = load_frozen(job.parents["model"], job.settings.precision, pick_device(job.runtime.device))
    scores: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}  # of what has one
    job.state.mkdir(exist_ok=True)
    for name, corpus in job.parents_of("corpus").items():
        losses = block_losses(model, corpus, length=_block(job, model, corpus), tokens=job.settings.tokens)
        scores[name] = in_units(float(losses.mean()), corpus)
        ends = [in_units(end, corpus) for end in interval(losses) or ()]
        intervals[name] = {metric: (ends[0][metric], ends[1][metric]) for metric in scores[name] if ends}
        job.say(f"{name}: held-out loss {scores[name]['loss']:.4f}")
        if not ends:
            job.say(
                f"{name}: it is all one block, so there is no interval; stages.evaluate.max_length makes more blocks"
            )
        if worse := worse_than_guessing(scores[name]["loss"], model.get_input_embeddings().weight.shape[0]):
            job.say(f"{name}: {worse}")  # broken, unless it is random and has learnt nothing yet: the report knows
        highest = ends[1] if ends else scores[name]
        if math.isinf(highest["perplexity"]):
            raise ColpipeError(
                f"{job.parents['model']}: its loss on {name} is {scores[name]['loss']:,.1f} nats per token (up to "
                f"{highest['loss']:,.1f}), and the perplexity overflows: its logits are far too large to be scored"
            )
    for name, (values, spread) in task_values(job, model).items():
        scores[name] = {**percent(values), **spread}
        intervals[name] = percent_intervals(values)
        job.say(f"{name}: " + ", ".join(f"{metric} {value:.2f}" for metric, value in scores[name].items()))
    if job.settings.continued:
        write_json(job.staging / "continuations.json", continued(job, model))
    write_json(job.staging / "scores.json", scores)
    write_json(job.staging / "intervals.json", intervals)
    job.publish()


def _block(job: Job[Settings], model: PreTrainedModel, corpus: Path) -> int | None:
    """Length of the blocks of held-out text; None: as long as the model reads.

    Raises:
        ColpipeError: the model cannot read as much: an ancestor may have fewer positions than its chain.
    """
    if (length := job.settings.max_length) is None:
        return None
    require_positions(model, length, "stages.evaluate.max_length: a block of held-out text")
    return min(length, whole_block(corpus, "test"))


def continued(job: Job[Settings], model: PreTrainedModel) -> list[dict[str, str]]:
    """What the model makes of the beginnings of texts; those that it cannot continue are said."""
    tokenizer, settings = load_tokenizer(job.parents["model"]), job.settings
    found = continuations(model, tokenizer, settings.continued, settings.continued_tokens, job.seed)
    for each in found:
        if "problem" in each:
            job.say(f"{each['prompt']!r} is not continued: {each['problem']}")
    return found


def task_values(job: Job[Settings], model: PreTrainedModel) -> dict[str, tuple[Values, dict[str, float]]]:
    """Every task's metrics row by row, and `<metric>_deviation` where answers were sampled with several seeds: the sample
    standard deviation of their means, in percent. The answers are published, and what likelihoods say of each row.

    Tasks that share their fine-tuning follow each other.
    """
    tasks, tokenizer, tuned = job.parents_of("task"), load_tokenizer(job.parents["model"]), {}
    trained = {**tasks, **job.parents_of("train")}
    keys = {name: _tuning(trained[name], job.settings.tasks[name]) for name in tasks}
    for folder in ("answers", "rows"):
        (job.staging / folder).mkdir(exist_ok=True)
    found = {}
    for name in sorted(tasks, key=lambda name: [keys[other] for other in tasks].index(keys[name])):
        if job.should_stop():
            job.stop()
        done, rows = job.state / f"task-{name}.json", read_rows(tasks[name], "test")
        kept = read_record(done)
        if kept is None:
            kept = {"values": {}, "answers": [], "deviations": {}}
            if job.settings.tasks[name].max_new_tokens:
                if keys[name] not in tuned:
                    first = next(other for other in tasks if keys[other] == keys[name])
                    tuned = {keys[name]: _tuned(job, model, first, trained[name], tokenizer)}
                kept = _answer_and_score(job, name, tuned[keys[name]], tokenizer, rows)
            if job.settings.tasks[name].likelihood:
                from colpipe.evaluation.likelihood import likelihood_scores  # lm-eval takes seconds to import

                kept["values"] |= likelihood_scores(model, tokenizer, rows)
            kept["rows"] = job.manifest.get("rows", {})
            write_record(done, kept)
        job.manifest["rows"] = {**kept["rows"], **job.manifest.get("rows", {})}
        found[name] = kept["values"], kept["deviations"]
        if compared := {metric: kept["values"][metric] for metric in LIKELIHOODS if metric in kept["values"]}:
            frame = pd.DataFrame({"id": [row["id"] for row in rows], **compared})
            frame.to_csv(job.staging / "rows" / f"{name}.csv", index=False, float_format="%.6g")
        if not kept["answers"]:
            continue
        with open(job.staging / "answers" / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row, answers in zip(rows, zip(*kept["answers"], strict=True), strict=True):
                file.write(json.dumps({"id": row["id"], "answers": answers}, ensure_ascii=False) + "\n")
    return {name: found[name] for name in tasks}


def _tuning(folder: Path, task: Task) -> str:
    """Stands for what a task is fine-tuned on, and how."""
    return key_of([str(folder), task.fine_tune.model_dump()]) if task.fine_tune else ""


def _tuned(job: Job[Settings], model: PreTrainedModel, name: str, folder: Path, tokenizer) -> PreTrainedModel:
    """The model, or a copy of it that is fine-tuned in float32, and then as precise as the model."""
    settings = job.settings.tasks[name].fine_tune
    if settings is None:
        return model
    copy = deepcopy(model) if model.dtype == torch.float32 else load_model(job.parents["model"]).to(model.device)
    tuned = fine_tune(job, copy.requires_grad_(), tokenizer, read_rows(folder, "train"), settings, label=f"{name}: ")
    return tuned.to(model.dtype)


def _answer_and_score(job: Job[Settings], name: str, model, tokenizer, rows: list[dict]) -> dict:
    task, prompts = job.settings.tasks[name], [row["prompt"] for row in rows]
    answers = [
        answer_all(model, tokenizer, prompts, task.max_new_tokens, GENERATION_ROWS, task.temperature, seed)
        for seed in range(task.samples)
    ]
    samples = [score_rows(sample, rows) for sample in answers]
    return {"values": averaged(samples), "answers": answers, "deviations": deviations(samples)}


if __name__ == "__main__":
    run_stage(
        "evaluate",
        __doc__,
        main,
        inputs={
            "model": "model to score",
            "corpus*": "prepared corpora for held-out perplexity",
            "task*": "prepared instructions of each task",
            "train*": "prepared instructions to fine-tune on, of tasks that have others than their own",
        },
        settings=Settings,
    )
