"""Pre-train a model of a given shape from scratch (Appendix C.1), where no public checkpoint exists."""

from colpipe.architectures.settable import require_parameters
from colpipe.config.parts import Architecture, Shape, Strict
from colpipe.config.stages import Pretrain
from colpipe.data.mixtures import validation_items
from colpipe.data.tokens import Blocks
from colpipe.hf.models import random_model, save_model
from colpipe.hf.tokenizers import load_tokenizer, require_rows
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.training.keep_best import take_best
from colpipe.training.trainer import train


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    training: Pretrain


def main(job: Job[Settings]) -> None:
    settings = job.settings
    tokenizer = load_tokenizer(job.parents["tokenizer"])
    require_rows(tokenizer, settings.architecture.vocabulary, "architecture.vocabulary")
    model = random_model(settings.architecture.configure(settings.shape, tokenizer.eos_token_id), job.seed)
    require_parameters(model.num_parameters(), settings.architecture.parameters(settings.shape))
    length = settings.training.max_length
    data = Blocks(job.parents["corpus"], "train", length, settings.training.tokens)
    validation = None
    if settings.training.evaluations:
        validation = validation_items(Blocks(job.parents["corpus"], "validation", length))
    job.say(f"{settings.shape}, {model.num_parameters():,} parameters, {len(data) * length:,} tokens")
    model = train(job, model, settings.training, data, validation=validation)
    kept = take_best(job, model, settings.training)
    save_model(model, tokenizer, job.staging)
    job.publish(parameters=model.num_parameters(), **kept)


if __name__ == "__main__":
    run_stage(
        "pretrain",
        __doc__,
        main,
        inputs={"corpus": "prepared corpus", "tokenizer": "tokenizer of the chain"},
        settings=Settings,
    )
