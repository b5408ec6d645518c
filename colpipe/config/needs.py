"""What a study's stages need of its prepared data, to find too little before anything is trained (no torch here).

A block of a corpus, a budget's tokens, a row of instructions: what the trainings, scorings and measurements read when their
turn comes, which may be days after the data were made.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

from colpipe.config.parts import Runtime
from colpipe.config.stages import Distill, Pretrain
from colpipe.config.study import Study
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


class Need(NamedTuple):
    """The least that a split must hold."""

    split: str
    least: int
    """tokens of a corpus, rows of instructions"""
    why: str
    """what needs it: key path and value"""


class JobRuntime(Runtime):
    """What a job is told beside its settings. None of it changes a result, and changing it reruns nothing."""

    needs: list[Need] = []
    """Of the data set that it prepares."""
    streams: Path | None = None
    """Folder for the residual streams of models that several jobs of the study fit cuts to; null: none does."""


def require_enough(place: object, counts: Mapping[str, Mapping[str, int]], runtime: Runtime) -> None:
    """Refuse to publish data that the study cannot use.

    Raises:
        ColpipeError: a split holds less than a stage needs of it.
    """
    if isinstance(runtime, JobRuntime) and (lines := list(shortages(place, counts, runtime.needs))):
        raise ColpipeError("\n".join(lines))


def shortages(place: object, counts: Mapping[str, Mapping[str, int]], needs: Sequence[Need]) -> Iterator[str]:
    """A line for each need that a prepared data set does not meet.

    Args:
        place: its folder.
        counts: of its manifest: split → `tokens` or `rows`.
    """
    for split, least, why in needs:
        unit = "tokens" if "tokens" in counts[split] else "rows"
        if (there := counts[split][unit]) < least:
            yield (
                f"{place}: the {split} split has {there:,} {unit}, but {why} needs {least:,}; lower that, or give the data "
                f"set more rows, or the split more of them (datasets.<name>.validation, test)"
            )


def needs_of(study: Study) -> dict[str, list[Need]]:
    """Corpora and instructions by name: the most that any stage needs of each split."""
    found: dict[str, dict[str, Need]] = {}
    for user, use in _all_needs(study):
        for name, need in _passed_on(study, user, use):
            largest = found.setdefault(name, {})
            if need.split not in largest or largest[need.split].least < need.least:
                largest[need.split] = need
    return {name: list(largest.values()) for name, largest in found.items()}


def written_shortages(study: Study) -> Iterator[str]:
    """A line for each corpus that will be written too short for a stage: before anything runs, it is known how long."""
    for name, needs in needs_of(study).items():
        written = study.corpora[name].written if name in study.corpora else None
        for need in needs if written else ():
            if need.split == "train" and need.least > written.tokens:
                yield (
                    f"corpora.{name}.written.tokens: {written.tokens:,} are less than the {need.least:,} that {need.why} "
                    "needs; raise it, or lower that"
                )


def _passed_on(study: Study, name: str, need: Need) -> Iterator[tuple[str, Need]]:
    """A need of a corpus or of instructions, and what it means for the corpora that it is made of."""
    yield name, need
    corpus = study.corpora.get(name)
    for part, share in corpus.shares.items() if corpus else ():
        why = f"{need.why}, {share:.3g} of corpora.{name},"
        yield from _passed_on(study, part, need._replace(least=ceil(share * need.least), why=why))
    if corpus and corpus.written:
        written, why = corpus.written, f"corpora.{name}.written"
        documents = ceil(written.tokens / (written.opening + written.max_new_tokens + 1))
        for split, least in (("train", documents), ("validation", 1), ("test", 1)):
            opened = Need(split, least * (written.opening + 1), f"{why} with its tokens {written.tokens:,}")
            yield from _passed_on(study, written.openings, opened)


def _all_needs(study: Study) -> Iterator[tuple[str, Need]]:
    stages = study.stages
    scratch = any(model.shape for model in study.models.values())
    scratch |= any(each.start == "scratch" for part in (study.chain, study.ancestors) for each in part.values())
    if stages.pretrain and scratch:
        yield from _pretrained(stages.pretrain, "stages.pretrain", stages.pretrain.tokens or 0, "tokens")
    budget = max((tokens for ancestor in study.ancestors for *_, tokens in study.builds_of(ancestor)), default=0)
    if stages.recover and budget:
        yield from _pretrained(stages.recover, "stages.recover", budget, "budget")
    if stages.order and any(ancestor.select in ("rank", "rotate") for ancestor in study.ancestors.values()):
        length = f"stages.order.max_length {stages.order.max_length}"
        yield stages.order.corpus, Need("train", stages.order.tokens, f"stages.order.tokens {stages.order.tokens}")
        yield stages.order.corpus, Need("validation", stages.order.max_length, length)
    if stages.fit and study.has_fitted():
        yield stages.fit.corpus, Need("train", stages.fit.tokens, f"stages.fit.tokens {stages.fit.tokens}")
    if stages.sft:
        yield stages.sft.instructions, Need("train", 1, "stages.sft")
        if stages.sft.evaluations:
            why = f"stages.sft.evaluations {stages.sft.evaluations}"
            yield stages.sft.instructions, Need("validation", 1, why)
    if stages.answers and any(ancestor.bridge for ancestor in study.ancestors.values()):
        yield stages.answers.instructions, Need("train", 1, "stages.answers")
    for ancestor in study.ancestors:
        for member in study.members(ancestor):
            yield from _distilled(study, study.distill_settings(ancestor, member), f"the distillation of {member}")
        for name in {name for _, name, _ in study.builds_of(ancestor) if study.initialisers[name].kind == "distilled"}:
            settings = study.desnet_distill_settings(ancestor, name)
            yield from _distilled(study, settings, f"the distillation by initialisers.{name}")
    for name, task in study.tasks.items():
        yield task.instructions, Need("test", 1, f"tasks.{name}")
        if task.fine_tune:
            yield task.train or task.instructions, Need("train", 1, f"tasks.{name}.fine_tune")
    for name, stack in study.stacks.items():
        for task_name in stack.tasks:
            yield study.tasks[task_name].instructions, Need("train", 1, f"stacks.{name}")


def _pretrained(settings: Pretrain, path: str, tokens: int, what: str) -> Iterator[tuple[str, Need]]:
    length = f"{path}.max_length {settings.max_length}"
    train = f"{path} with its {what} {tokens:,}" if tokens >= settings.max_length else length
    yield settings.corpus, Need("train", max(tokens, settings.max_length), train)
    if settings.evaluations:
        yield settings.corpus, Need("validation", settings.max_length, length)


def _distilled(study: Study, settings: Distill, who: str) -> Iterator[tuple[str, Need]]:
    for name in settings.names:
        length = settings.max_length if name in study.corpora else 1
        why = f"{who} on {name} (max_length {settings.max_length})"
        yield name, Need("train", length, why)
        if settings.evaluations or settings.signal:
            yield name, Need("validation", length, why)
