"""One step of the learngene chain: a member learns from the member before it (Eq. 1, §3.3).

The first member's teacher is the ancestor, or its bridge. A member that inherits starts as the subset of its teacher, or of
an equivalent of the ancestor whose leading indices are the important ones (stage `order`).
"""

from pathlib import Path

from colpipe.data.tokens import Blocks, Rows, collate, read_rows
from colpipe.errors import ColpipeError
from colpipe.job import Job, run_stage
from colpipe.learngene.importance import kept_signal
from colpipe.learngene.inheritance import inheritance, passed_on
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights
from colpipe.settings import Architecture, Distill, Select, Shape, Strict
from colpipe.training.models import load_model, load_tokenizer, save_model
from colpipe.training.trainer import mixed, train, validation_items


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    select: Select = "even"
    training: Distill


def main(job: Job) -> None:
    settings: Settings = job.settings
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
        details = _inherit(job.parents.get("ordered", teacher_folder), settings, student_folder)
    student, teacher = load_model(student_folder), load_model(teacher_folder)

    length = settings.training.max_length
    data, validation = [], []
    for folder in job.parents_of("data").values():
        if (folder / "train.npy").exists():
            data.append(Blocks(folder, "train", length))
            held_out = Blocks(folder, "validation", length)
        else:
            data.append(Rows(read_rows(folder, "train"), tokenizer, length))
            held_out = Rows(read_rows(folder, "validation"), tokenizer, length)
        validation.append(validation_items(held_out))
    job.say(f"{settings.shape}, {student.num_parameters():,} parameters, from {teacher.num_parameters():,}")
    student = train(
        job,
        student,
        settings.training,
        mixed(data),
        collator=collate(tokenizer.pad_token_id),
        validation=mixed(validation),
        teacher=teacher,
    )
    save_model(student, tokenizer, job.staging)
    job.publish(parameters=student.num_parameters(), **details)


def _inherit(source: Path, settings: Settings, folder: Path) -> dict:
    """Write the subset that a member starts from; give what its manifest keeps of where it came from."""
    known, weights, sizes = inheritance(source), Weights(source), settings.architecture.sizes(settings.shape)
    gain = kept_signal(known.energy, weights.sizes["hidden"], sizes["hidden"])
    subset = take_subset(weights, sizes, settings.select, known.ranking, settings.architecture.is_tied, gain)
    subset.write(folder)
    return passed_on(known, subset.details["layer_map"])


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
            "tokenizer": "tokenizer of the chain",
            "data*": "prepared instructions and corpora",
        },
        settings=Settings,
        optional=("student", "ordered"),
    )
