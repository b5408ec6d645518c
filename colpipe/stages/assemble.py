"""Assemble a DesNet: from its neighbours of the learngene chain (LInit, §3.4), or by one of the other initialisers."""

from typing import Literal

from colpipe.evaluation.perplexity import held_out_loss
from colpipe.job import Job, run_stage
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elastic import cut
from colpipe.learngene.inheritance import inheritance
from colpipe.learngene.initialisers import make, rand
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.search import best, sweep
from colpipe.learngene.weights import Weights, copy_companions
from colpipe.settings import Architecture, Fraction, InitialiserKind, Method, Select, Shape, Strict
from colpipe.training.counting import counted
from colpipe.training.models import load_model, load_tokenizer

SEARCH_TOKENS = 8192  # of the validation split, for each candidate of `alpha: search`


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    kind: InitialiserKind
    method: Method = "paper"
    alpha: Fraction | list[Fraction] | Literal["search"] | None = None
    compensate: Fraction = 0.0
    select: Select = "even"


def main(job: Job) -> None:
    settings: Settings = job.settings
    sizes = settings.architecture.sizes(settings.shape)
    if settings.kind == "rand":
        config = settings.architecture.configure(settings.shape, load_tokenizer(job.parents["tokenizer"]).eos_token_id)
        assembly = rand(config, job.seed)
    elif settings.kind == "linit" and "smaller" in job.parents:
        assembly = _interpolated(job, sizes)
    else:
        source = Weights(job.parents["source"])
        known = inheritance(source.folder)
        if settings.kind == "linit" and settings.method == "cut":
            assembly = cut(source, sizes, known.require_elastic(source.name))
        elif settings.kind == "linit":  # below the chain: a subset of its smallest member
            assembly = take_subset(source, sizes, settings.select, known.ranking)
        else:
            assembly = make(settings.kind, source, sizes, settings.method, settings.select, job.seed, known.ranking)
    assembly.write(job.staging)
    copy_companions(job.parents.get("larger", job.parents.get("source", job.parents["tokenizer"])), job.staging)
    job.publish(parameters=assembly.parameters, kind=settings.kind, **assembly.details)


def _interpolated(job: Job, sizes: dict) -> Assembly:
    settings: Settings = job.settings
    small, large = job.parents["smaller"], job.parents["larger"]
    known = {"layer_map": inheritance(small, large).layer_map, "ranking": inheritance(large).ranking}
    alpha, compensate = settings.alpha, settings.compensate
    if alpha == "search":

        def score(model) -> float:
            return held_out_loss(counted(model), job.parents["corpus"], split="validation", tokens=SEARCH_TOKENS)[
                "loss"
            ]

        loaded = Weights(load_model(small)), Weights(load_model(large))
        rows = sweep(*loaded, [sizes], score, methods=[settings.method], **known)
        for row in rows:
            job.measure(split="search", step=len(job.metrics()), **row)
        alpha, compensate = best(rows)["alpha"], best(rows)["compensate"]
        job.say(f"alpha {alpha}, compensate {compensate}: loss {best(rows)['loss']:.4f}, the best of {len(rows)}")
    return linit(Weights(small), Weights(large), sizes, alpha, settings.method, compensate, **known)


if __name__ == "__main__":
    run_stage(
        "assemble",
        __doc__,
        main,
        inputs={
            "smaller": "smaller neighbour",
            "larger": "larger neighbour",
            "source": "the one model that other initialisers start from",
            "tokenizer": "tokenizer of the chain",
            "corpus": "prepared corpus, for alpha: search",
        },
        settings=Settings,
        optional=("smaller", "larger", "source", "corpus"),
    )
