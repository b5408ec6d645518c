"""Supervised fine-tuning of an ancestor or a pre-trained chain member on instructions (Appendix C.1)."""

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.config.parts import Prompts, Strict
from colpipe.config.stages import Sft
from colpipe.data.tokens import read_rows
from colpipe.hf.models import load_model, load_tokenizer, save_model
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.training.supervised import fine_tune


class Settings(Strict):
    training: Sft
    prompts: Prompts


def main(job: Job[Settings]) -> None:
    tokenizer = load_tokenizer(job.parents["model"])
    model = load_model(job.parents["model"])
    chat = tokenizer if job.settings.prompts == "chat" else None
    rows = read_rows(job.parents["instructions"], "train", chat)
    scored = job.settings.training.evaluations > 0
    validation = read_rows(job.parents["instructions"], "validation", chat, needed=scored)[:VALIDATION_ITEMS]
    model = fine_tune(job, model, tokenizer, rows, job.settings.training, validation)
    save_model(model, tokenizer, job.staging)
    job.publish(parameters=model.num_parameters())


if __name__ == "__main__":
    run_stage(
        "sft",
        __doc__,
        main,
        inputs={"model": "model to fine-tune", "instructions": "prepared instructions"},
        settings=Settings,
    )
