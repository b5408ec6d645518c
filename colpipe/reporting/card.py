"""The model card of a published model: what it is, what it was made of and how, what it scores (no torch here)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import Field

from colpipe.architectures.families import FAMILIES
from colpipe.architectures.widths import not_quantisable
from colpipe.config.constants import CONTINUED_TEMPERATURE
from colpipe.config.parts import Shape, Source, Strict, Template, is_left_out
from colpipe.config.stages import Task
from colpipe.evaluation.scores import LIKELIHOODS
from colpipe.evaluation.uniform import is_broken, uniform_guess, uniform_loss
from colpipe.reporting.exports import Exports
from colpipe.reporting.kept import DIFFERENCE, KEPT

TEMPLATE = Path(__file__).with_name("card.md.j2")
METRICS = {  # ours → the Hub's identifier, in words
    "loss": ("loss", "Loss, nats per token"),
    "perplexity": ("perplexity", "Perplexity"),
    "bits_per_byte": ("bits_per_byte", "Bits per byte"),
    "rouge_l": ("rouge", "Rouge-L, %"),
    "accuracy": ("accuracy", "Accuracy, %"),
    "unparsable": ("unparsable", "Answers that open with no choice, %"),
    "likelihood": ("accuracy", "Accuracy by log-likelihood, %"),
    "likelihood_normalised": ("accuracy", "Accuracy by log-likelihood over the length of the choice, %"),
    "last_word": ("accuracy", "Last words that are the most probable, %"),
    "answer_bits_per_byte": ("bits_per_byte", "Bits per byte of right answers"),
    KEPT: (KEPT, "Of the ancestor's lead over chance, it keeps, %"),
}


class Origin(Strict):
    """A model or data set that was fetched."""

    name: str
    source: Source
    license: str | None = None
    terms: str | None = Field(default=None, exclude_if=is_left_out)
    """Address of the licence's text, where that is no common licence."""

    @property
    def place(self) -> str:
        """Where it is from, with what pins it."""
        source = self.source
        if source.hub:
            return f"hub: {source.hub}, revision {source.revision or 'not pinned'}"
        if source.path:
            return f"local: {Path(source.path).name}"
        return "; ".join(f"wheel: {wheel}, sha256 {digest}" for wheel, digest in source.wheels.items())


class Described(Strict):
    """What a card says that the model's folder does not."""

    study: str
    path: str
    """Of the model under the study's results."""
    ancestor: str
    """Model that the chain descends from; empty for random ones."""
    family: str
    shape: Shape
    sources: dict[str, Origin]
    """Staged folder → where it is from; of what the model descends from, and of what it is scored on."""
    scored: dict[str, str]
    """Corpus or task → staged folder of its data set; not corpora that are mixed or written."""
    tasks: dict[str, Task]
    template: Template = "own"
    """Its chat template."""
    instructed: bool = False
    """Whether it learned to answer here, or whatever it has its weights of."""


class Asked(NamedTuple):
    """How a model is asked.

    Attributes:
        instructed: whether it learned to answer here.
        prompt: the paper's, where it learned with that.
        chat: whether it has its tokenizer's own chat template.
        begin: the token that it reads before every text, where there is one.
    """

    instructed: bool
    prompt: str | None
    chat: bool
    begin: str | None = None


def licence(origins: Sequence[Origin]) -> dict[str, str]:
    """The Hub's metadata of a model made of these sources: their licence, and its terms, if they all state the same ones."""
    stated = {(origin.license, origin.terms) for origin in origins}
    if not any(license for license, _ in stated):
        return {"license": "unknown"}
    if len(stated) == 1:
        license, terms = stated.pop()
        return {"license": license, **({"license_link": terms} if terms else {})}
    return {"license": "other", "license_name": "those-of-its-sources", "license_link": "README.md"}


def results(
    known: Described, scores: Mapping[str, Mapping[str, float]], tuned: Mapping[str, bool]
) -> Iterator[EvalResult]:
    """Every score as the Hub's model index has it."""
    for name, metrics in scores.items():
        origin = known.sources[known.scored[name]] if name in known.scored else None
        for metric, value in metrics.items():
            after = ", after fine-tuning on the task" if tuned[name] and metric not in LIKELIHOODS else ""
            yield EvalResult(
                task_type="text-generation",
                dataset_type=(origin.source.hub or origin.name) if origin else name,
                dataset_name=name,
                dataset_config=name,  # what the Hub groups by
                dataset_split="test",
                dataset_revision=origin.source.revision if origin else None,
                metric_type=METRICS.get(metric, (metric,))[0],
                metric_name=_words(metric) + after,
                metric_value=value,
            )


def card(
    known: Described,
    config: Mapping,
    manifests: Mapping[str, tuple[dict, str]],
    scores: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    guesses: Mapping[str, list[dict]],
    asked: Asked,
    seed: int,
    exported: Exports | None = None,
    kept: Sequence[Mapping] = (),
    written: str = "",
) -> ModelCard:
    """The card of a model.

    Args:
        config: its `config.json` mapping.
        manifests: path → (manifest, fingerprint) of everything that it descends from, parents first, and itself last.
        scores, intervals: task or corpus → metric → value, ends of its 95 % interval.
        guesses: task → rows of what guessing scores.
        exported: its GGUF files, where the study reports them.
        kept: rows of its comparison with the ancestor (`kept.comparisons`).
        written: what it writes, a block of text of `continuations.block`; empty where it continued nothing.
    """
    descended = {folder: origin for folder, origin in known.sources.items() if folder in manifests}
    tuned = {name: bool(name in known.tasks and known.tasks[name].fine_tune) for name in scores}
    name = "-".join((known.study, *known.path.split("/")[1:]))
    data = ModelCardData(
        **licence(list(descended.values())),
        base_model=_on_the_hub(descended, "resources/models/"),
        datasets=_on_the_hub(descended, "resources/data/"),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["colpipe", "chain-of-learngene", "learngene", known.family],
        model_name=name,
        eval_results=list(results(known, scores, tuned)) or None,
    )
    vocabulary = FAMILIES[known.family].sizes(config)["vocabulary"]
    text = {name: metrics["loss"] for name, metrics in scores.items() if "loss" in metrics}
    tokens = 0 if known.path.endswith("/0") else None  # how many it has learnt from makes no difference
    guesses = {
        **guesses,
        **{name: [{"init": "uniform", "metric": "loss", "value": uniform_loss(vocabulary)}] for name in text},
    }
    path_of = {content: path for path, (_, content) in manifests.items()}
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        known=known,
        unquantised=not_quantisable(known.shape.widths),
        parameters=manifests[known.path][0]["parameters"],
        positions=FAMILIES[known.family].sizes(config)["position"],
        asked=asked,
        exported=exported,
        written=written,
        temperature=CONTINUED_TEMPERATURE,
        seed=seed,
        broken=[
            f"{name}: {value:.2f}"
            for name, value in text.items()
            if is_broken(value, vocabulary, known.ancestor, tokens)
        ],
        uniform=uniform_guess(vocabulary),
        scores=[
            {
                "on": task,
                "metric": _words(metric),
                "value": value,
                "interval": intervals[task].get(metric),  # a deviation has none
                "tuned": tuned[task] and metric not in LIKELIHOODS,
                "guessed": [row for row in guesses.get(task, []) if row["metric"] == metric],
            }
            for task, metrics in scores.items()
            for metric, value in metrics.items()
        ]
        + [
            {
                "on": row["task"],
                "metric": _words(row["metric"]),
                "value": row["value"],
                "interval": (row["low"], row["high"]),
                "tuned": False,
                "guessed": [],
            }
            for row in kept
        ],
        lineage=[
            {
                "path": path,
                "how": descended[path].place if path in descended else _how(manifest),
                "parents": sorted({path_of.get(parent, parent) for parent in manifest["parents"].values()}),
                "content": content,
            }
            for path, (manifest, content) in manifests.items()
        ],
        sources=[(origin, folder in descended) for folder, origin in known.sources.items()],
        bound=[origin for origin in descended.values() if origin.terms],
        recipe={
            path: yaml.safe_dump(_without_sources(manifest["settings"]), allow_unicode=True)
            for path, (manifest, _) in manifests.items()
            if path not in descended
        },
    )


def _on_the_hub(origins: Mapping[str, Origin], kind: str) -> list[str] | None:
    found = [origin.source.hub for folder, origin in origins.items() if kind in folder and origin.source.hub]
    return found or None


def _words(metric: str) -> str:
    if metric.endswith(DIFFERENCE):
        return f"{_words(metric.removesuffix(DIFFERENCE))}: less the ancestor's"
    return METRICS[metric][1] if metric in METRICS else metric.replace("_", " ")


def _without_sources(settings: object) -> object:
    """Settings as they may be seen by others: where files lie on this machine is nobody's business."""
    if not isinstance(settings, Mapping):
        return settings
    return {key: _without_sources(value) for key, value in settings.items() if key != "source"}


def _how(manifest: Mapping) -> str:
    """The stage that made a folder, and what it says of itself."""
    details = [f"{key} {manifest[key]}" for key in ("kind", "method", "alpha", "compensate") if key in manifest]
    if stop := manifest.get("stopped"):
        end = "ended it" if stop["reached"] else "did not end it"
        details.append(f"{stop['tokens']:,} of {stop['of']:,} tokens, stop_at {stop['at']:g} {end}")
    return ", ".join([manifest["stage"], *details])
