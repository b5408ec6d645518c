"""Settings of the stages that train, answer and measure: typed, with defaults (no torch here).

The docstring under a key is its explanation, in config/README.md and in the schema that editors read.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from colpipe.config.parts import (
    LEFT_OUT,
    Align,
    Fraction,
    Name,
    Positive,
    Precision,
    Shape,
    Strict,
    Tokens,
    Weight,
    is_left_out,
)

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
ORDER_TOKENS = 8192  # that importance is measured on
FIT_TOKENS = 16384  # that cuts are fitted on
FIT_RIDGE = 0.3  # of 0.001 to 3 the best on SmolLM2 (docs/initialisers.md)
OPENINGS = [  # facts that a small model of English may know, and the beginning of a story
    "Photosynthesis is the process by which",
    "The capital of France is",
    "Water boils when",
    "A bicycle has two wheels, and",
    "Once upon a time, in a village by the sea, there lived",
]


class Training(Strict):
    """How one model is trained. Sizes are global: they do not depend on the number of devices."""

    steps: Positive | None = None
    """Optimiser steps; takes precedence over `epochs`."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data."""
    batch_size: Positive = 8
    """Sequences per optimiser step, over all devices."""
    max_length: Positive = 512
    """Longest sequence, tokens. Corpora are cut into blocks of this length; rows of instructions are never cut: those that
    are longer (prompt, answer and end-of-text) are left out and counted."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning rate after warm-up."""
    warmup: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up: a share of the steps (below 1), or a whole number of steps; not more than there are."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """AdamW's betas: decay rates of its two moving averages."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Precision = "float32"
    """Arithmetic of the forward pass; bfloat16 is autocast over float32 weights, and a frozen teacher has its weights in it,
    half the memory (on a processor without instructions for it, many times slower)."""
    evaluations: Annotated[int, Field(ge=0)] = 0
    """Validation losses to take: at the start and at this many evenly spaced steps, the last one included; 0: none."""

    @model_validator(mode="after")
    def warmup_ends(self) -> "Training":
        if self.warmup > 1 and self.warmup % 1:
            raise ValueError(f"warmup: {self.warmup:g}: give a share of the steps below 1, or a whole number of steps")
        if self.steps and self.warmup > self.steps:
            raise ValueError(
                f"warmup: {self.warmup:g} steps are more than steps {self.steps}; a share such as 0.02 fits any"
            )
        return self


class Pretrain(Training):
    """Pre-training from scratch and recovery pre-training (Appendix C.1)."""

    corpus: Name = LEFT_OUT
    """Corpus to train on; left out, the first of the study."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over `tokens` of the corpus (paper: 2)."""
    batch_size: Positive = 2
    """Blocks per optimiser step (paper: 2)."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW (paper: 5e-4)."""
    tokens: Tokens | None = None
    """Pre-train on this many tokens, evenly spread; `null`: the whole corpus. Recovery takes its `budgets` instead."""
    evaluations: Annotated[int, Field(ge=0)] = 4
    """Validation losses to take: at the start and at this many evenly spaced steps, the last one included; 0: none."""
    keep: Literal["loss", "last"] = "loss"
    """Which of the `evaluations` is published: the best by validation loss, the start included, so that training makes no
    model worse; or the last state (as in the paper); without evaluations the last."""


class Recover(Pretrain):
    """Recovery pre-training of DesNets (§4), and where it may end early."""

    stop_at: Annotated[float, Field(gt=0)] | None = Field(default=None, exclude_if=is_left_out)
    """End at the first of the `evaluations`, the start included, at which the DesNet is good enough, and record the tokens
    that it took. Up to 1: a share of the ancestor's quality, 0.95 for a validation loss of at most the ancestor's (or its
    bridge's) / 0.95; random DesNets are measured against the first ancestor. Above 1: that loss, nats per token. Learning
    rates follow the schedule of the whole budget, whose name the DesNet keeps."""

    @model_validator(mode="after")
    def stop_is_looked_at(self) -> "Recover":
        if self.stop_at and not self.evaluations:
            raise ValueError(
                f"stop_at: {self.stop_at:g} is looked for at evaluations, and evaluations is 0; take some, such as 10"
            )
        return self

    @property
    def stops_by_ancestor(self) -> bool:
        """Whether `stop_at` is a share of the ancestor's quality."""
        return self.stop_at is not None and self.stop_at <= 1


class Sft(Training):
    """Supervised fine-tuning of ancestors and pre-trained chain members (Appendix C.1: 3 epochs on Dolly)."""

    instructions: Name = LEFT_OUT
    """Instructions to train on; left out, the first of the study; the loss is on the answers only."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the data (paper: 3)."""
    batch_size: Positive = 2
    """Rows per optimiser step (paper: 2, for the heterogeneous ancestors)."""


class Answers(Strict):
    """Answers of a heterogeneous ancestor, the pseudo data of Eq. 2."""

    instructions: Name = LEFT_OUT
    """Instructions whose training prompts are answered; left out, the first of the study."""
    prompts: Positive | None = None
    """Answer at most this many prompts; `null` answers all."""
    max_new_tokens: Positive = 256
    """Longest answer, the ancestor's tokens."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature (paper: 1); 0 is greedy."""
    batch_size: Positive = 16
    """Prompts answered together; part of the result, because sampling is seeded per batch."""
    precision: Precision = "float32"
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
    """Longer prompts are left out and counted, tokens; prompt and answer together have at most `max_length`."""
    max_new_tokens: Positive | None = None
    """Longest completion, tokens; `null` is what `max_length` leaves after the prompt."""
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
    whiten: Literal["rollout", "update"] = "rollout"
    """`minillm`: what advantages are whitened over: the tokens of the `rollout`, or, as in MiniLLM's published code, each
    `update` for itself, its tokens and the padding behind them."""
    clip: float = Field(default=0.2, gt=0)
    """`minillm`: ε, how far a probability ratio may move from 1 (paper: 0.2)."""
    text_weight: Annotated[float, Field(ge=0)] = 1.0
    """`minillm`: weight of the cross-entropy on the corpora among `data`, if there are any."""
    text_teacher: Fraction = 0.0
    """`minillm`: share s of the teacher in that: (1 − s) · cross-entropy + s · KL(teacher ‖ student); 0.5 in MiniLLM's
    published scripts."""


class Distill(Training):
    """One step of the chain: a member learns from the member before it (Eq. 1)."""

    data: Annotated[
        Annotated[list[Name], Tag("names")] | Annotated[dict[Name, Weight], Field(min_length=1), Tag("weights")],
        Discriminator(lambda value: "weights" if isinstance(value, Mapping) else "names"),
    ] = []
    """Instructions (loss on the answers) and corpora (loss on all tokens) to distil on, mixed row by row: all of each that
    is named, or by weights (`{wikipedia: 0.7, own: 0.3}`), their shares of the rows and blocks, evenly spread over each and
    as many as there are without repetition. Left out, all corpora of the study that are in no mixture, or all its
    instructions where it has no corpus; of `minillm`, `on_policy` and `seqkd`, which take no weights, all instructions and
    such corpora."""
    objective: Literal["reverse_kl", "forward_kl", "jsd", "seqkd", "minillm", "on_policy"] = "forward_kl"
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
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW (MiniLLM: 5e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate after warm-up (MiniLLM: constant)."""
    warmup: Annotated[float, Field(ge=0)] = 0.02
    """Linear warm-up: a share of the steps (below 1), or a whole number of steps (MiniLLM: 100, of 5000)."""
    keep: Literal["rouge_l", "loss", "last"] = "loss"
    """Which of the `evaluations` after the start is published: the best by Rouge-L of generated answers (Appendix C.1; by
    loss where none are scored), or by validation loss, or the last state; without evaluations the last. The validation loss
    is the objective on validation rows and blocks; of objectives that complete prompts, the reverse divergence there."""
    answer_rows: Annotated[int, Field(ge=0)] = 128
    """Validation prompts answered greedily at each evaluation, for Rouge-L; 0 scores none."""
    answer_tokens: Positive = 64
    """Longest of these answers, tokens."""

    @property
    def weights(self) -> dict[str, float] | None:
        """Name → weight of the data; None where all of each is taken."""
        return self.data if isinstance(self.data, dict) else None

    @property
    def names(self) -> list[str]:
        """Names of the data; the order of weights means nothing."""
        return sorted(self.data) if isinstance(self.data, dict) else list(self.data)


class Elastic(Strict):
    """A member that is distilled together with smaller shapes inside it, so that every shape between is a good model."""

    smallest: Shape | None = None
    """Smallest shape; `null` is that of the next member."""
    random: Annotated[int, Field(ge=0)] = 1
    """Random shapes at every step, between the smallest and the member."""
    with_smallest: bool = True
    """Whether the smallest shape learns at every step."""
    sampling: Literal["free", "joint"] = "free"
    """`free`: every axis by itself; `joint`: all widths the same share of the way between, the depth by itself."""
    axes: list[Literal["layers", "heads", "hidden", "ffn"]] = ["layers", "heads", "hidden", "ffn"]
    """Axes that change in random shapes; others stay as the member has them. Key/value heads change whole, with their
    queries."""
    align: Align | None = None
    """Hidden and FFN widths of random shapes are multiples of this; `null` is `architecture.align`."""
    after: Fraction = 0.0
    """Share of the steps that the member takes alone before the smaller shapes join."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of each smaller shape's loss; the member's own is 1."""
    compensate: Fraction | None = None
    """Exponent g of the factor (hidden of the member / hidden of the shape)^g on a shape's norm gains; `null` is 1, and 0 in
    chains of an ordered ancestor, whose measured shares of the signal give the factor."""


class Order(Strict):
    """The importance pass of `select: rank` and `rotate`: one look at the ancestor, no training."""

    corpus: Name = LEFT_OUT
    """Corpus to look at; left out, the first of the study."""
    tokens: Annotated[Tokens, Field(gt=0)] = ORDER_TOKENS
    """How much of it, tokens."""
    max_length: Positive = 128
    """In blocks of this many tokens."""
    precision: Precision = "float32"
    """Arithmetic of its layers, as in `fit`."""


class Fit(Strict):
    """The text that a cut is fitted on (`start: fit`, `method: fit`), layer by layer by least squares; no training."""

    corpus: Name = LEFT_OUT
    """Corpus whose training text it is; left out, the first of the study."""
    tokens: Annotated[Tokens, Field(gt=0)] = FIT_TOKENS
    """How much of it, tokens; at least a few times the widest layer."""
    max_length: Positive = 256
    """In blocks of this many tokens; left out, no more than `architecture.positions`."""
    precision: Precision = "float32"
    """Arithmetic of both models' layers; in bfloat16 about two thirds of the time on a processor that has it, and tens of
    times as long on one that has not. Sums over tokens, and what is solved, stay in float32 and float64."""
    ridge: Annotated[float, Field(ge=0)] = FIT_RIDGE
    """How much the cut's own weights count: the factor of their squared change, times the mean square of what they read."""


class Scores(Strict):
    """How models are scored."""

    precision: Precision = "float32"
    """Arithmetic, and weights, of the models that are scored; what is fine-tuned first is trained as its task says. Held-out
    losses in bfloat16 differ in the third decimal (docs/evaluation.md); all models of a study have the same."""
    max_length: Positive | None = None
    """Blocks of held-out text, tokens; left out, `architecture.positions`, or all of a text that is shorter. The interval of
    a loss is over blocks: of few it says little."""
    tokens: Annotated[Tokens, Field(gt=0)] | None = None
    """Score so many tokens of each corpus's test text, evenly spread over it; left out, or where there are fewer, all. Bits
    per byte are then by the bytes that a token of all of it has."""
    continued: list[str] = OPENINGS
    """Beginnings of texts that every model continues, greedily and sampled, for the report and its card; `[]` for none."""
    continued_tokens: Positive = 48
    """Longest of these continuations, tokens."""

    @field_validator("continued")
    @classmethod
    def each_once(cls, continued: list[str]) -> list[str]:
        blank = [text for text in continued if not text.strip()]
        if blank:
            raise ValueError(f"{blank[0]!r}: give the beginning of a text, or [] for none")
        if twice := next((text for text in continued if continued.count(text) > 1), None):
            raise ValueError(f"{twice!r} is there twice; give each beginning once")
        return continued


class Export(Strict):
    """GGUF files of DesNets, for llama.cpp and Ollama."""

    types: list[Literal["f16", "q8_0", "q4_0"]] = Field(default=["f16", "q8_0", "q4_0"], min_length=1)
    """A file of each: half precision, 8 bits (8.5 with scales) and 4 bits (4.5) a weight."""
    reported: bool = False
    """Whether the report and the model cards show the files, bytes and, where llama.cpp is installed, tokens a second; they
    are then made with the report."""


class FineTune(Training):
    """Fine-tuning on one task before it is scored (Appendix C.1: 10 epochs, batch 16, 1e-5, last epoch)."""

    epochs: float = Field(default=10.0, gt=0)
    """Passes over the task's training rows (paper: 10)."""
    batch_size: Positive = 16
    """Rows per optimiser step (paper: 16 or 8)."""


class Task(Strict):
    """A benchmark: fine-tune on its training rows, generate the answers of its test rows, score them; or compare likelihoods
    alone."""

    instructions: Name
    """Instructions whose test rows are answered; rows with choices are also scored by accuracy."""
    train: Name | None = None
    """Instructions whose training rows the model is fine-tuned on; `null` is those of `instructions`. Tasks that share them,
    and the settings, share one fine-tuned model."""
    fine_tune: FineTune | None = FineTune()
    """Fine-tuning before the scoring; `null`: none."""
    max_new_tokens: Annotated[int, Field(ge=0)] = 32
    """Longest generated answer, tokens. 0: nothing is generated, nor fine-tuned for it; there are scores by `likelihood`."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; the generation sets are sampled at 1."""
    samples: Positive = 1
    """Answers sampled for each prompt, with a seed each (five for the generation sets); scores are their means."""
    likelihood: bool = False
    """Scores by log-likelihood, before any fine-tuning. Rows with choices: the share of rows where the right one is the most
    probable, as lm-eval compares them (`likelihood`, and divided by the length of the choice `likelihood_normalised`); last
    words: where it is the most probable (`last_word`); both: `answer_bits_per_byte` of what is right. Models are then
    compared with their ancestor, row by row (*kept*)."""

    @model_validator(mode="after")
    def samples_differ(self) -> "Task":
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples: {self.samples} greedy answers are all the same; set temperature")
        if self.train and not self.fine_tune:
            raise ValueError(f"train: {self.train!r} is not used without fine_tune")
        return self

    @model_validator(mode="after")
    def something_is_scored(self) -> "Task":
        if self.max_new_tokens:
            return self
        if not self.likelihood:
            raise ValueError("max_new_tokens: 0 leaves nothing to score; set likelihood: true")
        for key in ("train", "fine_tune", "temperature"):
            if key in self.model_fields_set and getattr(self, key):
                raise ValueError(
                    f"{key}: is not used with max_new_tokens 0: likelihoods are those of the weights as they are"
                )
        self.fine_tune = None
        return self


class Stack(Strict):
    """Small models in sequence, fine-tuned each for its step (FSLM, Appendix K): the baseline for one DesNet."""

    ancestor: Name
    """Ancestor whose chain the member is of; it, or its bridge, writes what the steps learn to write."""
    member: Name
    """Member of the chain that every step, and the answer at the end, is a copy of."""
    steps: list[str] = Field(
        default=[
            "Say in a few words what is asked for.",
            "Name what one has to know to answer this.",
            "Think step by step towards the answer.",
        ],
        min_length=1,
    )
    """What each model before the last is asked to write (three and the answer: four models, as FSLM has)."""
    max_new_tokens: Positive = 48
    """Longest note of a step, tokens."""
    train_rows: Positive = 5000
    """Training rows of a task, at most (FSLM: 5,000)."""
    tasks: list[Name] = Field(min_length=1)
    """Tasks that it is fine-tuned and scored on."""
    fine_tune: FineTune = FineTune()
    """How each of its models is fine-tuned."""
