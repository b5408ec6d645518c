"""What a teacher says about the distillation data, computed once for all epochs and students that use it."""

from colpipe.data.mixtures import items_of, mixed, validation_of
from colpipe.device import pick_device
from colpipe.job import Job, run_stage
from colpipe.settings import Architecture, Strict
from colpipe.training.models import load_model, load_tokenizer
from colpipe.training.signal import capture


class Settings(Strict):
    architecture: Architecture
    top_k: int
    max_length: int


def main(job: Job) -> None:
    settings: Settings = job.settings
    tokenizer = load_tokenizer(job.parents["teacher"])
    teacher = load_model(job.parents["teacher"]).to(pick_device(job.runtime.device)).eval()
    folders, length = job.parents_of("data").values(), settings.max_length
    rows, text = items_of(folders, "train", tokenizer, length)
    top_k, vocabulary = min(settings.top_k, settings.architecture.vocabulary - 1), settings.architecture.vocabulary
    for name, items in (("train", mixed([*rows, *text])), ("validation", validation_of(folders, tokenizer, length))):
        capture(job, teacher, items, top_k, vocabulary, tokenizer.pad_token_id, name)
    job.publish(top_k=top_k)


if __name__ == "__main__":
    run_stage(
        "teacher_signal",
        __doc__,
        main,
        inputs={"teacher": "the teacher", "data*": "prepared instructions and corpora, as its students have them"},
        settings=Settings,
    )
