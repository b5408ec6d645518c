"""SeqKD: a model of the chain's architecture learns the ancestor's answers (Eq. 2, §3.2)."""

from colpipe.config.constants import VALIDATION_ITEMS
from colpipe.config.stages import Bridge
from colpipe.data.rows import read_rows
from colpipe.hf.models import load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.training.supervised import fine_tune


def main(job: Job[Bridge]) -> None:
    tokenizer = load_tokenizer(job.parents["model"])
    model = load_model(job.parents["model"])
    rows = read_rows(job.parents["answers"], "train")
    held_out = min(VALIDATION_ITEMS, len(rows) // 10)
    model = fine_tune(job, model, tokenizer, rows[held_out:], job.settings, rows[:held_out])
    save_model(model, tokenizer, job.staging)
    job.publish(parameters=model.num_parameters())


if __name__ == "__main__":
    run_stage(
        "bridge",
        __doc__,
        main,
        inputs={"model": "model of the chain's architecture", "answers": "the ancestor's answers"},
        settings=Bridge,
    )
