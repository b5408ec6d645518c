"""Assemble a DesNet: interpolated from its neighbours of the learngene chain (LInit, §3.4), or random."""

from typing import Literal

from colpipe.architectures import FAMILIES
from colpipe.checkpoint import read_manifest
from colpipe.job import Job, run_stage
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.weights import copy_companions, write_model
from colpipe.settings import Architecture, Fraction, Shape, Strict


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    kind: Literal["linit", "rand"]
    method: Literal["paper", "nested"] | None = None
    alpha: Fraction | None = None


def main(job: Job) -> None:
    settings: Settings = job.settings
    sizes = settings.architecture.sizes(settings.shape)
    details = {}
    if settings.kind == "rand":
        from colpipe.training.models import load_tokenizer, random_model, save_model  # seconds, spared the others

        tokenizer = load_tokenizer(job.parents["tokenizer"])
        config = FAMILIES[settings.architecture.family].configure(sizes, tokenizer.eos_token_id)
        save_model(random_model(config, job.seed), tokenizer, job.staging)
    else:
        larger = job.parents["larger"]
        if "smaller" in job.parents:
            layer_map = read_manifest(job.parents["smaller"]).get("layer_map")
            tensors, config, details["index_maps"] = linit(
                job.parents["smaller"], larger, sizes, settings.alpha, settings.method, layer_map
            )
        else:
            tensors, config, details["layer_map"] = take_subset(larger, sizes)
        write_model(tensors, config, job.staging)
        copy_companions(larger, job.staging)
    job.publish(parameters=settings.architecture.parameters(settings.shape), alpha=settings.alpha, **details)


if __name__ == "__main__":
    run_stage(
        "assemble",
        __doc__,
        main,
        inputs={
            "smaller": "smaller neighbour",
            "larger": "larger neighbour",
            "tokenizer": "tokenizer of the chain",
        },
        settings=Settings,
        optional=("smaller", "larger"),
    )
