"""Supervised fine-tuning of an ancestor or a pre-trained chain member on instructions (Appendix C.1)."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.config.parts import Prompts, Strict
from colpipe.config.stages import Sft
from colpipe.data.rows import read_rows
from colpipe.errors import ColpipeError
from colpipe.hf.models import load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer, require_rows
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.training.supervised import fine_tune


class Settings(Strict):
    training: Sft | None = None
    prompts: Prompts | None
    """None: as the rows were prepared."""


def main(job: Job[Settings]) -> None:
    tokenizer = load_tokenizer(job.parents["model"])
    model = load_model(job.parents["model"])
    if job.settings.training is None:
        require_rows(tokenizer, model.config.vocab_size, f"{job.parents['model']}: vocabulary")
        job.say("the study has no instructions, or no stages.sft: the model stays as it is")
    else:
        model = _tuned(job, model, tokenizer, job.settings.training)
    save_model(model, tokenizer, job.staging)
    job.publish(parameters=model.num_parameters())


def _tuned(
    job: Job[Settings], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: Sft
) -> PreTrainedModel:
    if "instructions" not in job.parents:
        raise ColpipeError("settings: training needs --instructions, the rows to train on")
    folder, asked = job.parents["instructions"], (job.settings.prompts, tokenizer)
    rows = read_rows(folder, "train", *asked)
    validation = read_rows(folder, "validation", *asked, needed=training.evaluations > 0)[:VALIDATION_ITEMS]
    return fine_tune(job, model, tokenizer, rows, training, validation)


if __name__ == "__main__":
    run_stage(
        "sft",
        __doc__,
        main,
        inputs={"model": "model to fine-tune", "instructions": "prepared instructions"},
        settings=Settings,
        optional=("instructions",),
    )
