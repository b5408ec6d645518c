"""One step of the learngene chain: a member learns from the member before it, or from the ancestor (Eq. 1, §3.3).

The first member's teacher is the ancestor, or its bridge. A member that inherits starts as the subset of its teacher, or of
an equivalent of the ancestor whose leading indices are the important ones (stage `order`).
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.architectures.layers import keep_layers
from colpipe.config.constants import COMPLETION_OBJECTIVES
from colpipe.config.parts import Architecture, Select, Shape, Strict
from colpipe.config.stages import Distill, Elastic, Fit
from colpipe.data.encoding import encode_prompts
from colpipe.data.mixtures import mixed, prompts_of, split_kinds, training_of, validation_of
from colpipe.data.rows import read_rows
from colpipe.data.tokens import Blocks, require_batch
from colpipe.errors import ColpipeError
from colpipe.evaluation.generation import answer_all
from colpipe.hf.generation_config import end_ids
from colpipe.hf.models import load_frozen, load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer, require_rows
from colpipe.jobs.artifacts import write_json
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device, wait_for_all
from colpipe.jobs.job import Job
from colpipe.learngene.elastic import ElasticMember
from colpipe.learngene.inheritance import inheritance, inherited_entries, inherited_subset
from colpipe.learngene.tokenizers import require_same_tokenizer
from colpipe.learngene.weights import Weights, copy_companions
from colpipe.training.distillation import DistillationData, distill
from colpipe.training.elastic import Submodels
from colpipe.training.fitting import FIT_DETAILS, fit_to
from colpipe.training.rollout_trainer import as_item, sample_all
from colpipe.training.rollouts import chosen_prompts
from colpipe.training.signal import WithCachedTeacher

POLL_SECONDS = 0.5


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    select: Select = "even"
    training: Distill
    elastic: Elastic | None = None
    fit: Fit | None = None


def main(job: Job[Settings]) -> None:
    settings = job.settings
    teacher_folder = job.parents["teacher"]
    tokenizer = load_tokenizer(teacher_folder)
    require_rows(tokenizer, settings.architecture.vocabulary, "architecture.vocabulary")
    require_chain_tokenizer(job)
    student, details = prepare_student(job)
    submodels = prepare_submodels(job, student, details)
    device, teacher = pick_device(job.runtime.device), None
    if "signal" not in job.parents:
        teacher = load_frozen(teacher_folder, settings.training.precision, device)
    ends = [end for model in (student, teacher) if model for end in end_ids(model, tokenizer)]
    data = prepare_data(job, teacher, tokenizer, list(dict.fromkeys(ends)))
    job.say(f"{settings.shape}, {student.num_parameters():,} parameters, from {teacher_folder}")
    score = prepare_answer_score(job, tokenizer)
    student, kept = distill(job, student, teacher, settings.training, data, score, submodels)
    save_model(student, tokenizer, job.staging)
    job.publish(parameters=student.num_parameters(), **kept, **details)


def require_chain_tokenizer(job: Job[Settings]) -> None:
    """Refuse a teacher, or a student, whose ids mean something else than those of the chain's data.

    Which token ends or pads a text may differ, as between a base model and an instruct one: the ids mean the same.
    """
    for name in ("teacher", "student"):
        if name in job.parents:
            advice = (
                "its ancestor needs a bridge" if name == "teacher" else "a member starts from a model of the chain's"
            )
            require_same_tokenizer(job.parents[name], job.parents["tokenizer"], advice, special_too=False)


# The student.


def prepare_student(job: Job[Settings]) -> tuple[PreTrainedModel, dict]:
    """The model to start from, and what its manifest records of where it came from.

    Raises:
        ColpipeError: a given student has another shape than the study says.
    """
    if "student" in job.parents:
        folder, details = job.parents["student"], {}
        _require_shape(folder, job.settings)
    else:
        folder = job.state / "start"
        details = _inherit(job, job.parents.get("ordered", job.parents["teacher"]), folder)
    return load_model(folder), details


def _require_shape(folder: Path, settings: Settings) -> None:
    weights, wanted = Weights(folder), settings.architecture.sizes(settings.shape)
    for axis in ("layer", *weights.family.widths):
        if weights.sizes[axis] != wanted[axis]:
            raise ColpipeError(f"{folder}: {axis} is {weights.sizes[axis]}, the study's shape says {wanted[axis]}")


def _inherit(job: Job[Settings], source: Path, folder: Path) -> dict:
    """Write the subset that a member starts from, fitted if it shall be; give what its manifest keeps of where it came from.

    What was fitted before a job was killed is not fitted again.
    """
    settings = job.settings
    known, weights, sizes = inheritance(source), Weights(source), settings.architecture.sizes(settings.shape)
    subset = inherited_subset(weights, known, sizes, settings.select, settings.architecture.is_tied)
    entries, done = inherited_entries(known, subset.details["layer_map"]), folder / "entries.json"
    if job.is_main and not done.exists():
        if settings.fit:
            subset = fit_to(job, source, subset, settings.fit, pick_device(job.runtime.device))
            entries["fit"] = {name: subset.details[name] for name in FIT_DETAILS if name in subset.details}
        subset.write(folder)
        copy_companions(source, folder)  # what ends a text, above all
        write_json(done, entries)
    while not done.exists():  # a barrier gives up after 10 minutes, and a fit may take longer
        if job.should_stop():
            job.stop()
        time.sleep(POLL_SECONDS)
    wait_for_all()
    return json.loads(done.read_text())


def prepare_submodels(job: Job[Settings], student: PreTrainedModel, details: dict) -> Submodels | None:
    """The smaller shapes that an elastic member is distilled with; `details` is what its manifest will say, and gets an
    entry of them."""
    settings = job.settings
    if settings.elastic is None:
        return None
    if settings.elastic.smallest is None:
        raise ColpipeError("settings: elastic needs smallest, the shape of the next member")
    smallest = settings.architecture.sizes(settings.elastic.smallest)
    ranking, energy, compensate = details.get("ranking"), details.get("energy"), settings.elastic.compensate
    layers = keep_layers(settings.select, settings.shape.layers, smallest["layer"], ranking)
    if compensate is None:
        compensate = 0.0 if energy else 1.0
    elastic = ElasticMember(smallest, layers, compensate, ranking, energy)
    details["elastic"] = elastic.entry()
    return Submodels(student, elastic, settings.elastic, job.seed, job.runtime.gradient_checkpointing)


# The data.


def prepare_data(
    job: Job[Settings], teacher: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> DistillationData:
    """What the student learns from, as the objective wants it; `ends` are the ids that end a completion.

    Raises:
        ColpipeError: no prompt is short enough for an objective that completes prompts.
    """
    training, cache = job.settings.training, job.parents.get("signal")
    folders, length = list(job.parents_of("data").values()), training.max_length
    prompts: list[Tensor] = []
    text: list[Blocks] = []
    items: Dataset | None = None
    if training.objective in COMPLETION_OBJECTIVES:
        prompts = _prompts(job, folders, tokenizer)
        text = [Blocks(folder, "train", length) for folder in split_kinds(folders)[1]]
        if training.objective == "seqkd":
            items = _completed_by(job, teacher, prompts, text, ends)
    else:
        rows, items = training_of(job, folders, tokenizer, length, training.weights)
        require_batch(rows, len(items), training.batch_size)
        items = WithCachedTeacher(items, cache, "train") if cache else items
    validation = None
    if training.evaluations:
        validation = validation_of(job, folders, tokenizer, length, training.weights)
        validation = WithCachedTeacher(validation, cache, "validation") if cache else validation
    return DistillationData(
        items=items,
        prompts=prompts,
        text=mixed(text) if text and training.objective == "minillm" else None,
        validation=validation,
        end_ids=ends,
        pad_id=tokenizer.pad_token_id,
    )


def _prompts(job: Job[Settings], folders: list[Path], tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """The prompts that are completed: those that leave room for a token, whatever the length of the data's own answers."""
    training = job.settings.training
    longest = min(training.rollout.max_prompt, training.max_length - 1)
    prompts = prompts_of(job, folders, tokenizer, longest)
    if not prompts:
        raise ColpipeError(
            f"no prompt of {', '.join(training.names)} has {longest} tokens or fewer; raise rollout.max_prompt or max_length"
        )
    return prompts


def _completed_by(
    job: Job[Settings], teacher: PreTrainedModel, prompts: list, text: list[Dataset], ends: Sequence[int]
) -> list[dict]:
    """The teacher's completions of the prompts, among the blocks of text; no more of both than the steps will see."""
    training, blocks = job.settings.training, mixed(text) if text else []
    count = len(prompts) + len(blocks)
    seen = min(count, training.steps * training.batch_size) if training.steps else count
    chosen = chosen_prompts(count, 0, seen, job.seed)
    teacher_prompts = [prompts[index] for index in chosen if index < len(prompts)]
    rows = sample_all(
        job, {"teacher": teacher}, {"teacher": 1.0}, teacher_prompts, training, ends, job.seed, job.state / "answers"
    )
    return [as_item(row) for row in rows] + [blocks[index - len(prompts)] for index in chosen if index >= len(prompts)]


def prepare_answer_score(job: Job[Settings], tokenizer: PreTrainedTokenizerBase) -> Callable | None:
    """Rouge-L of a model's greedy answers to validation prompts; None where it is not asked for.

    Prompts that leave less than `answer_tokens` of the model's positions for an answer are passed over.

    Raises:
        ColpipeError: no prompt leaves as much.
    """
    training, positions = job.settings.training, job.settings.architecture.positions
    folders = split_kinds(job.parents_of("data").values())[0]
    if not (folders and training.evaluations and training.answer_rows):
        return None
    share = -(-training.answer_rows // len(folders))
    longest = positions - training.answer_tokens
    rows = []
    for folder in folders:
        candidates = read_rows(folder, "validation")
        ids = encode_prompts(tokenizer, [row["prompt"] for row in candidates])
        fitting = [row for row, prompt in zip(candidates, ids, strict=True) if len(prompt) <= longest]
        if len(fitting) < len(candidates):
            job.say(
                f"{folder.name}: {len(candidates) - len(fitting):,} of {len(candidates):,} validation prompts leave less "
                f"than answer_tokens {training.answer_tokens} of {positions} positions: not asked"
            )
        rows += fitting[:share]
    if not rows:
        raise ColpipeError(
            f"no validation prompt leaves answer_tokens {training.answer_tokens} of {positions} positions"
        )
    from colpipe.evaluation.scores import rouge_l  # a second, spared those whose validation has no answers

    prompts, references = [row["prompt"] for row in rows], [row.get("references", [row["output"]]) for row in rows]
    batch = training.rollout.batch_size

    def score(model: PreTrainedModel) -> float:
        values = rouge_l(answer_all(model, tokenizer, prompts, training.answer_tokens, batch), references)
        return 100 * sum(values) / len(values)

    return score


if __name__ == "__main__":
    run_stage(
        "distill",
        __doc__,
        main,
        inputs={
            "teacher": "the member before, or the ancestor, or its bridge",
            "student": "model to start from; left out, the subset of the teacher",
            "ordered": "the teacher with its important indices first, to take the subset of",
            "signal": "cached teacher log-probabilities on the same data; the teacher itself is not run then",
            "tokenizer": "tokenizer of the chain",
            "corpus": "prepared corpus that the subset of the teacher is fitted on",
            "data*": "prepared instructions and corpora",
        },
        settings=Settings,
        optional=("student", "ordered", "signal", "corpus"),
    )
