"""One step of the learngene chain: a member learns from the member before it, or from the ancestor (Eq. 1, §3.3).

The first member's teacher is the ancestor, or its bridge. A member that inherits starts as the subset of its teacher, or of
an equivalent of the ancestor whose leading indices are the important ones (stage `order`).
"""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from colpipe.data.mixtures import items_of, mixed, split_kinds, validation_of
from colpipe.data.tokens import read_rows
from colpipe.device import pick_device, wait_for_all
from colpipe.errors import ColpipeError
from colpipe.evaluation.generation import answer_all
from colpipe.evaluation.scores import rouge_l
from colpipe.job import Job, run_stage
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.importance import kept_signal
from colpipe.learngene.inheritance import inheritance, passed_on
from colpipe.learngene.linit import take_subset
from colpipe.learngene.selection import keep_layers
from colpipe.learngene.weights import Weights
from colpipe.settings import Architecture, Select, Shape, Strict
from colpipe.stage_settings import Distill, Elastic
from colpipe.training.distillation import SAMPLED, Material, answered, distill, sample_all
from colpipe.training.elastic import Parts
from colpipe.training.models import load_model, load_tokenizer, save_model
from colpipe.training.rollouts import chosen_prompts
from colpipe.training.signal import Taught


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    select: Select = "even"
    training: Distill
    elastic: Elastic | None = None


def main(job: Job) -> None:
    settings: Settings = job.settings
    training = settings.training
    teacher_folder = job.parents["teacher"]
    tokenizer = load_tokenizer(teacher_folder)
    if load_tokenizer(job.parents["tokenizer"]).get_vocab() != tokenizer.get_vocab():
        raise ColpipeError(f"{teacher_folder}: has another tokenizer than the chain; its ancestor needs a bridge")
    details = {}
    if "student" in job.parents:
        student_folder = job.parents["student"]
        _require_shape(student_folder, settings)
    else:
        student_folder = job.state / "start"
        details = _inherit(job, job.parents.get("ordered", teacher_folder), student_folder)
    student = load_model(student_folder)
    elastic = _elastic(settings, details)
    signal = job.parents.get("signal")
    teacher = None if signal else load_model(teacher_folder)

    folders = job.parents_of("data").values()
    rows, text = items_of(folders, "train", tokenizer, training.max_length)
    validation = validation_of(folders, tokenizer, training.max_length)
    prompts = [prompt for each in rows for prompt in each.prompts(training.rollout.max_prompt)]
    if not prompts and training.objective in (*SAMPLED, "seqkd"):
        most = training.rollout.max_prompt
        raise ColpipeError(
            f"no prompt of {', '.join(training.data)} has {most} tokens or fewer; raise rollout.max_prompt"
        )
    data = mixed([*rows, *text])
    if signal:
        data, validation = Taught(data, signal, "train"), Taught(validation, signal, "validation")
    elif training.objective == "seqkd":
        data = _answered_by(job, teacher, prompts, text, tokenizer.eos_token_id)
    job.say(f"{settings.shape}, {student.num_parameters():,} parameters, from {teacher_folder}")
    material = Material(
        data=None if training.objective in SAMPLED else data,
        prompts=prompts,
        text=mixed(text) if text and training.objective == "minillm" else None,
        validation=validation,
        end=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )
    parts = None
    if elastic:
        parts = Parts(student, elastic, settings.elastic, job.seed, job.runtime.gradient_checkpointing)
        details["elastic"] = elastic.entry()
    score = _answer_score(split_kinds(folders)[0], tokenizer, training, settings.architecture.positions)
    student, kept = distill(job, student, teacher, training, material, score, parts)
    save_model(student, tokenizer, job.staging)
    job.publish(parameters=student.num_parameters(), **kept, **details)


def _answered_by(job: Job, teacher: PreTrainedModel, prompts: list, text: list, end: int) -> list[dict]:
    """The teacher's answers to the prompts, among the blocks of text; no more of both than the steps will see."""
    training, blocks = job.settings.training, mixed(text) if text else []
    count = len(prompts) + len(blocks)
    seen = min(count, training.steps * training.batch_size) if training.steps else count
    used = chosen_prompts(count, 0, seen, job.seed)
    asked = [prompts[index] for index in used if index < len(prompts)]
    models = {"teacher": teacher.to(pick_device(job.runtime.device)).eval()}
    answers = sample_all(job, models, {"teacher": 1.0}, asked, training, end, job.seed, job.state / "answers")
    return [answered(row) for row in answers] + [
        blocks[index - len(prompts)] for index in used if index >= len(prompts)
    ]


def _answer_score(instructions: list[Path], tokenizer, training: Distill, positions: int) -> Callable | None:
    """Rouge-L of a model's greedy answers to validation prompts; None where it is not asked for.

    Prompts that leave less than `answer_tokens` of the model's positions for an answer are passed over.
    """
    if not (instructions and training.evaluations and training.answer_rows):
        return None
    share = -(-training.answer_rows // len(instructions))
    longest = positions - training.answer_tokens
    rows = []
    for folder in instructions:
        found = read_rows(folder, "validation")
        lengths = map(len, tokenizer([row["prompt"] for row in found], add_special_tokens=False)["input_ids"])
        rows += [row for row, length in zip(found, lengths, strict=True) if length <= longest][:share]
    if not rows:
        raise ColpipeError(
            f"no validation prompt leaves answer_tokens {training.answer_tokens} of {positions} positions"
        )
    prompts, references = [row["prompt"] for row in rows], [row.get("references", [row["output"]]) for row in rows]
    batch = training.rollout.batch_size

    def score(model) -> float:
        values = rouge_l(answer_all(model, tokenizer, prompts, training.answer_tokens, batch), references)
        return 100 * sum(values) / len(values)

    return score


def _inherit(job: Job, source: Path, folder: Path) -> dict:
    """Write the subset that a member starts from; give what its manifest keeps of where it came from.

    Of an elastic teacher it is the part that was trained, where the teacher goes down to that.
    """
    settings: Settings = job.settings
    known, weights, sizes = inheritance(source), Weights(source), settings.architecture.sizes(settings.shape)
    tied = settings.architecture.is_tied
    if known.elastic and known.elastic.reaches(weights.family, sizes):
        subset = cut(weights, sizes, known.elastic, tied)
    else:
        gain = kept_signal(known.energy, weights.sizes["hidden"], sizes["hidden"])
        subset = take_subset(weights, sizes, settings.select, known.ranking, tied, gain)
    if job.is_main:
        subset.write(folder)
    wait_for_all()
    return passed_on(known, subset.details["layer_map"])


def _elastic(settings: Settings, known: dict) -> ElasticMember | None:
    """How the parts of an elastic member are taken; `known` is what its manifest will say of its layers."""
    if settings.elastic is None:
        return None
    smallest = settings.architecture.sizes(settings.elastic.smallest)
    kept = keep_layers(settings.select, settings.shape.layers, smallest["layer"], known.get("ranking"))
    ranking, energy, compensate = known.get("ranking"), known.get("energy"), settings.elastic.compensate
    if compensate is None:
        compensate = 0.0 if energy else 1.0
    return ElasticMember(smallest, kept, compensate, ranking, energy)


def _require_shape(folder: Path, settings: Settings) -> None:
    weights, wanted = Weights(folder), settings.architecture.sizes(settings.shape)
    for axis in ("layer", *weights.family.widths):
        if weights.sizes[axis] != wanted[axis]:
            raise ColpipeError(f"{folder}: {axis} is {weights.sizes[axis]}, the study's shape says {wanted[axis]}")


if __name__ == "__main__":
    run_stage(
        "distill",
        __doc__,
        main,
        inputs={
            "teacher": "the member before, or the ancestor, or its bridge",
            "student": "model to start from; left out, the subset of the teacher",
            "ordered": "the teacher with its important indices first, to take the subset of",
            "signal": "the teacher's signal on the same data; the teacher itself is not run then",
            "tokenizer": "tokenizer of the chain",
            "data*": "prepared instructions and corpora",
        },
        settings=Settings,
        optional=("student", "ordered", "signal"),
    )
