"""Scan: assemble and score many DesNets between two neighbours, loaded once and never trained, for architecture search.

The settings are a grid; every combination becomes a row of `candidates.csv`, best first.
"""

import pandas as pd

from colpipe.api import scan
from colpipe.config.parts import Fraction, Method, Positive, Shape, Strict
from colpipe.config.stages import Fit
from colpipe.data.tokens import Blocks
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.evaluation.uniform import is_worse, uniform_guess, uniform_loss
from colpipe.hf.counting import count_calls
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.learngene.weights import Weights


class Settings(Strict):
    shapes: list[Shape]
    methods: list[Method] = ["nested"]
    fit: Fit = Fit()
    """Of method `fit`; the corpus is the job's."""
    alphas: list[Fraction | str] = ["auto"]
    compensations: list[Fraction] = [0.0]
    tokens: Positive = 8192


def main(job: Job[Settings]) -> None:
    settings = job.settings
    device = pick_device(job.runtime.device)

    def score(model) -> float:
        found = held_out_loss(
            count_calls(model.to(device)), job.parents["corpus"], split="validation", tokens=settings.tokens
        )
        return found["loss"]

    rows = scan(
        job.parents["smaller"],
        job.parents["larger"],
        settings.shapes,
        score,
        settings.alphas,
        settings.compensations,
        settings.methods,
        **(_text(job) if "fit" in settings.methods else {}),
    )
    pd.DataFrame(rows).to_csv(job.staging / "candidates.csv", index=False)
    vocabulary = Weights(job.parents["larger"]).sizes["vocabulary"]
    worse = sum(is_worse(row["loss"], vocabulary) for row in rows)
    job.say(f"{len(rows)} candidates, the best: {rows[0]}; {uniform_guess(vocabulary)}, {worse} are worse: broken")
    job.publish(candidates=len(rows), uniform_loss=uniform_loss(vocabulary), broken=worse)


def _text(job: Job[Settings]) -> dict:
    """What `scan` fits on."""
    fit = job.settings.fit
    blocks = Blocks(job.parents["corpus"], "train", fit.max_length, fit.tokens)
    ids = blocks.stacked()
    return {"text": ids, "tokens": ids.numel(), "ridge": fit.ridge, "precision": fit.precision}


if __name__ == "__main__":
    run_stage(
        "scan",
        __doc__,
        main,
        inputs={
            "smaller": "smaller neighbour",
            "larger": "larger neighbour",
            "corpus": "prepared corpus: candidates are scored on its validation text, method fit fits on its training text",
        },
        settings=Settings,
        package="tools",
    )
