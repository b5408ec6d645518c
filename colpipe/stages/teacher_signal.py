"""Cache a teacher's top-k log-probabilities on the distillation data, for all epochs and students that use them."""

from colpipe.config.parts import Architecture, Name, Precision, Strict, Weight
from colpipe.data.mixtures import training_of, validation_of
from colpipe.hf.models import load_frozen
from colpipe.hf.tokenizers import load_tokenizer, require_rows
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.training.signal import cache_log_probabilities


class Settings(Strict):
    architecture: Architecture
    top_k: int
    max_length: int
    precision: Precision = "float32"
    weights: dict[Name, Weight] | None = None


def main(job: Job[Settings]) -> None:
    settings = job.settings
    tokenizer = load_tokenizer(job.parents["teacher"])
    require_rows(tokenizer, settings.architecture.vocabulary, "architecture.vocabulary")
    teacher = load_frozen(job.parents["teacher"], settings.precision, pick_device(job.runtime.device))
    folders, length = job.parents_of("data").values(), settings.max_length
    items = training_of(job, folders, tokenizer, length, settings.weights)[1]
    validation = validation_of(job, folders, tokenizer, length, settings.weights)
    top_k, vocabulary = min(settings.top_k, settings.architecture.vocabulary - 1), settings.architecture.vocabulary
    for name, cached in (("train", items), ("validation", validation)):
        cache_log_probabilities(job, teacher, cached, top_k, vocabulary, tokenizer.pad_token_id, name)
    job.publish(top_k=top_k)


if __name__ == "__main__":
    run_stage(
        "teacher_signal",
        __doc__,
        main,
        inputs={"teacher": "the teacher", "data*": "prepared instructions and corpora, as its students have them"},
        settings=Settings,
    )
