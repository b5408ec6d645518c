"""Assemble a DesNet: from its neighbours of the learngene chain (LInit, §3.4), or by one of the other initialisers."""

from typing import Literal

from colpipe.architectures.settable import require_parameters
from colpipe.config.constants import SEARCH_TOKENS
from colpipe.config.parts import Architecture, Fraction, InitialiserKind, Method, Select, Shape, Strict
from colpipe.config.stages import Fit
from colpipe.errors import ColpipeError
from colpipe.evaluation.remark import worse_than_guessing
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elastic import cut
from colpipe.learngene.inheritance import inheritance, inherited_subset
from colpipe.learngene.initialisers import make, rand
from colpipe.learngene.linit import linit, take_subset
from colpipe.learngene.search import best, sweep
from colpipe.learngene.tokenizers import require_same_tokenizer, require_tokenizer_rows
from colpipe.learngene.weights import Weights, copy_companions


class Settings(Strict):
    architecture: Architecture
    shape: Shape
    kind: InitialiserKind
    method: Method = "paper"
    alpha: Fraction | list[Fraction] | Literal["search"] | None = None
    compensate: Fraction = 0.0
    select: Select = "even"
    fit: Fit | None = None


def main(job: Job[Settings]) -> None:
    settings = job.settings
    sizes = settings.architecture.sizes(settings.shape)
    companion = job.parents.get("larger", job.parents.get("source", job.parents["tokenizer"]))
    require_tokenizer_rows(companion, settings.architecture.vocabulary, "architecture.vocabulary")
    if settings.kind == "rand":
        config = settings.architecture.configure(settings.shape, load_tokenizer(job.parents["tokenizer"]).eos_token_id)
        assembly = rand(config, job.seed)
        require_parameters(assembly.parameters, settings.architecture.parameters(settings.shape))
    elif settings.kind == "linit" and "smaller" in job.parents:
        assembly = _interpolated(job, sizes)
    else:
        source = Weights(job.parents["source"])
        known = inheritance(job.parents["source"])
        if settings.method == "fit":
            start = inherited_subset(source, known, sizes, settings.select)
            assembly = _fitted(job, start)
        elif settings.kind == "linit" and settings.method == "cut":
            assembly = cut(source, sizes, known.require_elastic(source.name))
        elif settings.kind == "linit":  # below the chain: a subset of its smallest member
            assembly = take_subset(source, sizes, settings.select, known.ranking)
        else:
            assembly = make(settings.kind, source, sizes, settings.method, settings.select, job.seed, known.ranking)
    assembly.write(job.staging)
    copy_companions(companion, job.staging)
    job.publish(parameters=assembly.parameters, kind=settings.kind, **assembly.details)


def _interpolated(job: Job[Settings], sizes: dict) -> Assembly:
    settings = job.settings
    small, large = job.parents["smaller"], job.parents["larger"]
    require_same_tokenizer(small, large)
    known = {"layer_map": inheritance(small, large).layer_map, "ranking": inheritance(large).ranking}
    alpha, compensate = settings.alpha, settings.compensate
    if alpha is None:
        raise ColpipeError("settings: kind linit needs alpha, a number, one for each layer, or search")
    if alpha == "search":
        alpha, compensate = _search(job, sizes, known)
    return linit(Weights(small), Weights(large), sizes, alpha, settings.method, compensate, **known)


def _fitted(job: Job[Settings], start: Assembly) -> Assembly:
    """A subset of the larger neighbour, fitted on the training text; on the processor, as all light stages."""
    from colpipe.training.fitting import fit_to  # seconds, spared those who run no model

    if job.settings.fit is None or "corpus" not in job.parents:
        raise ColpipeError("settings: method fit needs fit, and --corpus, the text to fit on")
    return fit_to(job, job.parents["source"], start, job.settings.fit, "cpu")


def _search(job: Job[Settings], sizes: dict, known: dict) -> tuple[float, float]:
    """The alpha and the compensation with the lowest loss on the validation text, no training (`alpha: search`)."""
    from colpipe.evaluation.perplexity import held_out_loss  # seconds, spared those who run no model
    from colpipe.hf.counting import count_calls
    from colpipe.hf.models import load_model

    def score(model) -> float:
        corpus = job.parents["corpus"]
        return held_out_loss(count_calls(model), corpus, split="validation", tokens=SEARCH_TOKENS)["loss"]

    smaller, larger = (Weights(load_model(job.parents[name])) for name in ("smaller", "larger"))
    rows = sweep(smaller, larger, [sizes], score, methods=[job.settings.method], **known)
    for row in rows:
        job.measure(split="search", step=len(job.metrics()), **row)
    chosen = best(rows)
    job.say(
        f"alpha {chosen['alpha']}, compensate {chosen['compensate']}: loss {chosen['loss']:.4f}, the best of {len(rows)}"
    )
    if worse := worse_than_guessing(chosen["loss"], sizes["vocabulary"]):
        job.say(f"the model is broken, {worse}")
    return chosen["alpha"], chosen["compensate"]


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
            "corpus": "prepared corpus, for alpha: search and method: fit",
        },
        settings=Settings,
        optional=("smaller", "larger", "source", "corpus"),
    )
