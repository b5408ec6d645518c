"""Fitted cuts of a study: the text, and a subset of a model that is fitted to the model on it."""

import shutil
from pathlib import Path

import torch

from colpipe.config.constants import ORDER_ROWS
from colpipe.config.stages import Fit
from colpipe.data.tokens import Blocks
from colpipe.hf.models import load_model
from colpipe.jobs.job import Job
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.fit import fitted

# What a manifest keeps of a fitted assembly's details.
FIT_DETAILS = ("ridge", "tokens", "untouched", "fitted", "rank_deficient")


def fit_to(job: Job, source: Path, start: Assembly, settings: Fit, device: str | torch.device) -> Assembly:
    """A subset with what its layers write fitted to the model that it is a subset of, on the text of the job's `corpus`.

    Both run in float32 whatever the study's precision: in bfloat16, the fit would make up for its rounding. A job that is
    told to stop does so at the next batch, and fits anew when it is started again.

    Raises:
        ColpipeError: as in `fit`; the text is shorter than `tokens`, or than a block.
    """
    blocks = Blocks(job.parents["corpus"], "train", settings.max_length, settings.tokens)
    batches = [
        torch.stack([blocks[i]["input_ids"] for i in rows.tolist()])
        for rows in torch.arange(len(blocks)).split(ORDER_ROWS)
    ]
    scratch = job.state / "streams"
    shutil.rmtree(scratch, ignore_errors=True)  # of a job that was killed
    model = load_model(source).to(device).eval()
    assembly = fitted(model, start, batches, settings.ridge, scratch, lambda: _stop_if_told(job))
    tokens, told = assembly.details["tokens"], _told(assembly.details)
    job.say(f"fitted on {tokens:,} tokens, ridge {settings.ridge:g}: {told}")
    return assembly


def _stop_if_told(job: Job) -> None:
    if job.should_stop():
        job.say("nothing of a fit is kept: it is done anew")
        job.stop()


def _told(details: dict) -> str:
    """The relative error that is left of what the last layer should write, before its fit and after it."""
    if not details["fitted"]:
        return "nothing was cut away"
    before, after = (details["fitted"][-1][when] for when in ("before", "after"))
    return f"{len(details['fitted'])} times; relative error of the last stream {before} before its fit, {after} after"
