"""Order an ancestor: the same function, its important channels, heads, units first, so that every later subset is a prefix.

A few thousand tokens are run through the model once; nothing is trained. `rank` permutes, `rotate` turns the residual
stream to its principal components (RMSNorm families).
"""

import shutil

from colpipe.config.constants import ORDER_CHECKED, ORDER_ROWS
from colpipe.config.parts import Strict
from colpipe.config.stages import Order
from colpipe.data.tokens import Blocks
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.hf.models import load_model
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.learngene.importance import measure, reorder
from colpipe.learngene.tokenizers import require_tokenizer_rows
from colpipe.learngene.weights import Weights, copy_companions


class Settings(Strict):
    select: str
    tied: bool | None = None
    measuring: Order


def main(job: Job[Settings]) -> None:
    settings = job.settings
    folder, measuring = job.parents["model"], settings.measuring
    model = load_model(folder).to(pick_device(job.runtime.device)).eval()
    require_tokenizer_rows(folder, model.config.vocab_size, f"{folder}: vocabulary")
    blocks = Blocks(job.parents["corpus"], "train", measuring.max_length, measuring.tokens)
    batches = blocks.stacked().split(ORDER_ROWS)
    scratch = job.state / "streams"
    shutil.rmtree(scratch, ignore_errors=True)  # of a job that was killed
    importance = measure(model, batches, scratch, lambda: _stop_if_told(job), measuring.precision)
    ordered = reorder(Weights(folder), importance, settings.select, settings.tied)
    ordered.write(job.staging)
    copy_companions(folder, job.staging)

    # What the rewriting cost: nothing but rounding, or what a rotation loses when its head is tied again.
    tokens = min(measuring.tokens, ORDER_CHECKED)
    before, after = (
        held_out_loss(one, job.parents["corpus"], "validation", length=measuring.max_length, tokens=tokens)["loss"]
        for one in (model, load_model(job.staging).to(model.device))
    )
    job.say(f"{settings.select}: held-out loss {before:.4f} before, {after:.4f} after")
    if abs(after - before) > 0.01:
        job.say(
            "the order is not exact: its head is tied to the embedding again; architecture.tied: false keeps it exact"
        )
    job.publish(
        parameters=ordered.parameters, loss_before=round(before, 4), loss_after=round(after, 4), **ordered.details
    )


def _stop_if_told(job: Job) -> None:
    if job.should_stop():
        job.say("nothing of what was measured is kept: it is done anew")
        job.stop()


if __name__ == "__main__":
    run_stage(
        "order",
        __doc__,
        main,
        inputs={"model": "fine-tuned ancestor or bridge", "corpus": "prepared corpus of its tokenizer"},
        settings=Settings,
    )
