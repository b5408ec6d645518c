"""Recovery pre-training of a DesNet on some tokens of a corpus (§4: budgets of 0, 78M, 100M … tokens)."""

from colpipe.config.stages import Recover
from colpipe.data.mixtures import validation_items
from colpipe.data.tokens import Blocks
from colpipe.hf.models import load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.training.keep_best import take_best
from colpipe.training.stop_at import find_goal, stopped
from colpipe.training.trainer import train


def main(job: Job[Recover]) -> None:
    settings = job.settings
    tokenizer = load_tokenizer(job.parents["model"])
    data = Blocks(job.parents["corpus"], "train", settings.max_length, settings.tokens)
    validation = None
    if settings.evaluations:
        validation = validation_items(Blocks(job.parents["corpus"], "validation", settings.max_length))
    goal = find_goal(job, validation)
    model = load_model(job.parents["model"])
    model = train(job, model, settings, data, validation=validation, target=goal.target if goal else None)
    kept = take_best(job, model, settings)
    save_model(model, tokenizer, job.staging)
    job.publish(parameters=model.num_parameters(), **kept, **stopped(job, goal, len(data)))


if __name__ == "__main__":
    run_stage(
        "recover",
        __doc__,
        main,
        inputs={
            "model": "assembled DesNet",
            "corpus": "prepared corpus",
            "ancestor": "model that the DesNet's chain descends from, where stop_at is a share of its quality",
        },
        settings=Recover,
        optional=("ancestor",),
    )
