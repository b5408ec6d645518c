"""One step of the learngene chain: a member learns from the member before it (Eq. 1, §3.3).

The first member's teacher is the ancestor, or its bridge. A member that inherits starts as the subset of its teacher.
"""

from colpipe.architectures import family_of
from colpipe.data.tokens import Blocks, Rows, collate, read_rows
from colpipe.errors import ColpipeError
from colpipe.job import Job, run_stage
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import read_config, write_model
from colpipe.settings import Architecture, Distill, Shape, Strict
from colpipe.training.models import load_model, load_tokenizer, save_model
from colpipe.training.trainer import mixed, train, validation_items


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    training: Distill


def main(job: Job) -> None:
    settings: Settings = job.settings
    teacher_folder = job.parents["teacher"]
    tokenizer = load_tokenizer(teacher_folder)
    if load_tokenizer(job.parents["tokenizer"]).get_vocab() != tokenizer.get_vocab():
        raise ColpipeError(f"{teacher_folder}: has another tokenizer than the chain; its ancestor needs a bridge")
    sizes = settings.architecture.sizes(settings.shape)
    details = {}
    if "student" in job.parents:
        student_folder = job.parents["student"]
        _require_shape(student_folder, settings)
    else:
        tensors, config, layers = take_subset(teacher_folder, sizes)
        details["layer_map"] = layers  # which teacher layer each layer came from; nested LInit matches layers by it
        student_folder = job.state / "start"
        write_model(tensors, config, student_folder)
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


def _require_shape(folder, settings: Settings) -> None:
    config = read_config(folder)
    found = family_of(config, f"{folder}/config.json").sizes(config)
    wanted = settings.architecture.sizes(settings.shape)
    for axis in ("layer", "head", "hidden", "ffn"):
        if found[axis] != wanted[axis]:
            raise ColpipeError(f"{folder}: {axis} is {found[axis]}, the study's shape says {wanted[axis]}")


if __name__ == "__main__":
    run_stage(
        "distill",
        __doc__,
        main,
        inputs={
            "teacher": "the member before, or the ancestor, or its bridge",
            "student": "model to start from; left out, the subset of the teacher",
            "tokenizer": "tokenizer of the chain",
            "data*": "prepared instructions and corpora",
        },
        settings=Settings,
        optional=("student",),
    )
