"""What a study is: ancestors, one chain, DesNets; cross-checked, and refused before any job starts (no torch here).

A study is one YAML file. Every key that can change a result lives in it; where and how fast it runs (`runtime`, profiles)
changes nothing. `load_study` is the only entrance.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from colpipe.errors import ColpipeError
from colpipe.settings import (
    Answers,
    Architecture,
    Bridge,
    Corpus,
    Dataset,
    Distill,
    Fraction,
    Instructions,
    Model,
    Name,
    Pretrain,
    Runtime,
    Sft,
    Shape,
    Strict,
    Task,
    Tokenizer,
    Tokens,
)

SCRATCH = "scratch"  # stands where an ancestor's name would: random DesNets inherit from nobody


class Stages(Strict):
    """Settings of the stages; members, DesNets and tasks may override single keys."""

    pretrain: Pretrain | None = None
    """Pre-training of models given by a `shape`; needed where there is one."""
    sft: Sft | None = None
    """Supervised fine-tuning; needed by ancestors and pre-trained members."""
    answers: Answers | None = None
    """Answers of heterogeneous ancestors; needed where there is a bridge."""
    bridge: Bridge = Bridge()
    """SeqKD into the bridge."""
    distill: Distill
    """Stepwise distillation."""
    recover: Pretrain | None = None
    """Recovery pre-training; needed where a budget is above 0."""


class Ancestor(Strict):
    """A large model that the chain descends from."""

    model: Name
    """The ancestor."""
    bridge: Name | None = None
    """Model of the chain's architecture that learns from the ancestor's answers; for an ancestor of another family or
    vocabulary."""


class Member(Strict):
    """A checkpoint of the learngene chain."""

    shape: Shape
    """Its size; also for pre-trained members, so that everything can be planned before anything is fetched."""
    start: Literal["inherit", "pretrained", "scratch"]
    """`inherit`: as the subset of its teacher; `pretrained`: from `model`; `scratch`: from a model of its shape that is
    pre-trained here."""
    model: Name | None = None
    """The model that a pre-trained member starts from."""
    distill: dict[str, Any] = {}
    """Keys of `stages.distill` that this member overrides."""

    @model_validator(mode="after")
    def model_if_pretrained(self) -> "Member":
        if (self.start == "pretrained") != (self.model is not None):
            raise ValueError(f"start {self.start!r} with model {self.model!r}: model goes with start 'pretrained' only")
        return self


class DesNet(Strict):
    """A descendant: a model of any size between two members of the chain, or below its smallest."""

    shape: Shape
    """Its size: layers, heads, hidden, ffn."""
    alpha: Fraction | None = None
    """Overrides the initialisers' alpha for this DesNet."""


class Initialiser(Strict):
    """How a DesNet gets its first weights."""

    kind: Literal["linit", "rand"]
    """`linit`: interpolated from its two neighbours of the chain; `rand`: random, the baseline, shared by all ancestors."""
    method: Literal["paper", "nested"] = "paper"
    """`paper`: α · expand(smaller) + (1 − α) · subset(larger) (§3.4). `nested`: mixed where both have an index, the
    larger's own elsewhere."""
    alpha: Fraction | Literal["auto"] = "auto"
    """Weight of the smaller neighbour; `auto` = (P_large − P) / (P_large − P_small)."""


class Study(Strict):
    """A study: ancestors, one chain, DesNets, and how they are made and judged."""

    study: Name
    """Name; results go to `results/<study>/`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    architecture: Architecture
    """Architecture of the chain, its bridges and DesNets."""
    tokenizer: Tokenizer
    """Tokenizer of the chain."""
    models: dict[Name, Model]
    """Starting models by name."""
    datasets: dict[Name, Dataset]
    """Raw data by name."""
    corpora: dict[Name, Corpus] = {}
    """Prepared text by name."""
    instructions: dict[Name, Instructions] = {}
    """Prepared prompts and answers by name."""
    ancestors: dict[Name, Ancestor] = Field(min_length=1)
    """Ancestors by name; each gets a chain of its own."""
    chain: dict[Name, Member] = Field(min_length=1)
    """Members of the learngene chain, largest first."""
    desnets: dict[Name, DesNet] = {}
    """DesNets by name."""
    initialisers: dict[Name, Initialiser] = {}
    """Initialisers by name; every DesNet is built with each."""
    budgets: list[Tokens] = [0]
    """Recovery budgets, tokens (`78M` is understood); 0 is the DesNet as assembled."""
    tasks: dict[Name, Task] = {}
    """Benchmarks by name."""
    perplexity: list[Name] = []
    """Corpora whose test text every model is scored on: loss, perplexity, bits per byte."""
    stages: Stages
    """Settings of the stages."""
    runtime: Runtime = Runtime()
    """Where and how it runs; changes no result."""

    @model_validator(mode="after")
    def consistent(self) -> "Study":
        problems = [*_unknown_names(self), *_missing_stages(self), *_size_problems(self)]
        problems = problems or [*_length_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    # What depends on what: read by the Snakefile, so that every stage is data.

    def members(self) -> list[str]:
        """Names of the chain's members, largest first."""
        return list(self.chain)

    def teacher(self, member: str) -> str | None:
        """The member before this one, or None for the first, whose teacher is the ancestor or its bridge."""
        members = self.members()
        position = members.index(member)
        return members[position - 1] if position else None

    def distill_settings(self, member: str) -> Distill:
        """Distillation settings of one member, its overrides applied."""
        return Distill.model_validate({**self.stages.distill.model_dump(), **self.chain[member].distill})

    def parameters(self, shape: Shape) -> int:
        """Parameter count of a shape in the study's architecture."""
        return self.architecture.parameters(shape)

    def neighbours(self, desnet: str) -> tuple[str | None, str]:
        """The members that a DesNet is built from: (smaller, larger).

        The larger is the smallest member that is at least as large. Below the chain's smallest there is no smaller one:
        (None, smallest), a plain subset.
        """
        target = self.parameters(self.desnets[desnet].shape)
        smaller = None
        for member in reversed(self.members()):
            if self.parameters(self.chain[member].shape) >= target:
                return smaller, member
            smaller = member
        raise ColpipeError(f"desnets.{desnet}: above the chain's largest member")  # refused by _size_problems

    def alpha(self, desnet: str, initialiser: str) -> float | None:
        """Weight of the smaller neighbour; None where nothing is interpolated."""
        kind, smaller_larger = self.initialisers[initialiser], self.neighbours(desnet)
        if kind.kind != "linit" or smaller_larger[0] is None:
            return None
        if self.desnets[desnet].alpha is not None:
            return self.desnets[desnet].alpha
        if kind.alpha != "auto":
            return kind.alpha
        small, large = (self.parameters(self.chain[name].shape) for name in smaller_larger)
        return (large - self.parameters(self.desnets[desnet].shape)) / (large - small)


def _unknown_names(study: Study) -> Iterator[str]:
    """References to models, data sets, corpora and instructions that the study does not have."""

    def check(where: str, name: str | None, section: str) -> Iterator[str]:
        known = getattr(study, section)
        if name is not None and name not in known:
            yield f"{where}: {name!r} is not in {section} ({', '.join(known) or 'which is empty'})"

    yield from check("tokenizer.train", study.tokenizer.train, "corpora")
    yield from check("tokenizer.model", study.tokenizer.model, "models")
    for section in ("corpora", "instructions"):
        for name, entry in getattr(study, section).items():
            yield from check(f"{section}.{name}.dataset", entry.dataset, "datasets")
    for name, ancestor in study.ancestors.items():
        yield from check(f"ancestors.{name}.model", ancestor.model, "models")
        yield from check(f"ancestors.{name}.bridge", ancestor.bridge, "models")
    for name, member in study.chain.items():
        yield from check(f"chain.{name}.model", member.model, "models")
        if name in study.models:
            yield f"chain.{name}: a model has this name too; members and models need different names"
        try:
            study.distill_settings(name)
        except ValidationError as error:
            yield from (f"chain.{name}.distill.{line}" for line in _lines(error))
    for name, task in study.tasks.items():
        yield from check(f"tasks.{name}.instructions", task.instructions, "instructions")
    for number, name in enumerate(study.perplexity):
        yield from check(f"perplexity.{number}", name, "corpora")
    stages = study.stages
    for stage, section in (("pretrain", "corpora"), ("recover", "corpora")):
        if settings := getattr(stages, stage):
            yield from check(f"stages.{stage}.corpus", settings.corpus, section)
    for stage in ("sft", "answers"):
        if settings := getattr(stages, stage):
            yield from check(f"stages.{stage}.instructions", settings.instructions, "instructions")
    for number, name in enumerate(stages.distill.data):
        if name not in study.corpora and name not in study.instructions:
            known = ", ".join([*study.corpora, *study.instructions])
            yield f"stages.distill.data.{number}: {name!r} is in neither corpora nor instructions ({known})"
    for name in set(study.corpora) & set(study.instructions):
        yield f"corpora.{name}: instructions has this name too; they need different names"
    if SCRATCH in study.ancestors:
        yield f"ancestors.{SCRATCH}: the name is taken: random DesNets are kept under it"


def _missing_stages(study: Study) -> Iterator[str]:
    """Stages that something in the study needs and that have no settings."""
    scratch = [f"models.{n}" for n, model in study.models.items() if model.shape]
    scratch += [f"chain.{n}" for n, member in study.chain.items() if member.start == "scratch"]
    needs = {
        "pretrain": scratch,
        "sft": [f"ancestors.{n}" for n in study.ancestors],
        "answers": [f"ancestors.{n}.bridge" for n, ancestor in study.ancestors.items() if ancestor.bridge],
        "recover": [f"budgets ({tokens})" for tokens in study.budgets if tokens],
    }
    for stage, users in needs.items():
        if users and getattr(study.stages, stage) is None:
            yield f"stages.{stage}: missing, but {users[0]} needs it"


def _size_problems(study: Study) -> Iterator[str]:
    """A chain that does not descend, DesNets that no pair of neighbours can serve."""
    members = study.members()
    for larger, smaller in pairwise(members):
        large, small = (study.parameters(study.chain[name].shape) for name in (larger, smaller))
        if small >= large:
            yield (
                f"chain.{smaller}: {small:,} parameters follow {larger}'s {large:,}; "
                "members go from the largest to the smallest"
            )
    largest = study.chain[members[0]].shape
    for name, desnet in study.desnets.items():
        if study.parameters(desnet.shape) > study.parameters(largest):
            yield (
                f"desnets.{name}.shape: {desnet.shape} has {study.parameters(desnet.shape):,} parameters, above the "
                f"chain's largest member {members[0]} ({largest}: {study.parameters(largest):,})"
            )
            continue
        if not any(initialiser.kind == "linit" for initialiser in study.initialisers.values()):
            continue
        smaller, larger = study.neighbours(name)
        for neighbour in filter(None, (smaller, larger)):
            theirs = study.architecture.sizes(study.chain[neighbour].shape)["head_dim"]
            ours = study.architecture.sizes(desnet.shape)["head_dim"]
            if theirs != ours:
                yield (
                    f"desnets.{name}.shape: head_dim (hidden / heads) is {ours}, but {theirs} in {neighbour}; "
                    "heads are taken whole, so they must agree"
                )
        for axis in ("layers", "heads", "hidden", "ffn"):
            ours, theirs = getattr(desnet.shape, axis), getattr(study.chain[larger].shape, axis)
            if ours > theirs:
                yield (
                    f"desnets.{name}.shape.{axis}: {ours} is more than the {theirs} of its larger neighbour {larger}; "
                    f"at most {theirs} is allowed"
                )


def _length_problems(study: Study) -> Iterator[str]:
    """Sequences that are longer than the chain's models can read."""
    positions = study.architecture.positions
    lengths = {
        f"stages.{name}.max_length": stage.max_length
        for name in ("pretrain", "recover", "bridge", "distill")
        if (stage := getattr(study.stages, name))
    }
    for name, task in study.tasks.items():
        lengths[f"tasks.{name}.fine_tune.max_length"] = task.fine_tune.max_length
        rows = study.instructions[task.instructions].max_tokens
        if rows + task.max_new_tokens > positions:
            yield (
                f"tasks.{name}.max_new_tokens: {task.max_new_tokens} after prompts of up to {rows} tokens "
                f"(instructions.{task.instructions}.max_tokens) is more than architecture.positions {positions}"
            )
    for path, length in lengths.items():
        if length > positions:
            yield f"{path}: {length} is more than architecture.positions {positions}"


def _lines(error: ValidationError) -> Iterator[str]:
    """One line per problem: key path, value seen, what is allowed."""
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "value_error":
            for line in str(problem["ctx"]["error"]).splitlines():
                yield f"{path}: {line}" if path else line
        elif problem["type"] == "extra_forbidden":
            yield f"{path}: unknown key"
        elif problem["type"] == "missing":
            yield f"{path}: missing"
        else:
            yield f"{path}: {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def load_study(config: dict, where: str = "study") -> Study:
    """The validated study of a config mapping; `where` (a file) opens every message.

    Raises:
        ColpipeError: one line per problem, each with key path, value and what is allowed.
    """
    try:
        return Study.model_validate(config)
    except ValidationError as error:
        raise ColpipeError("\n".join(f"{where}: {line}" for line in _lines(error))) from None
