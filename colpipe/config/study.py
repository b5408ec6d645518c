"""What a study is: ancestors, one chain, DesNets, and what follows from them (no torch here).

A study is one YAML file. Every key that can change a result lives in it; where and how fast it runs (`runtime`, profiles)
changes nothing. `loading.load_study` reads one, and refuses what does not fit together before any job starts.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from colpipe.config.parts import (
    Architecture,
    Corpus,
    Dataset,
    Fraction,
    InitialiserKind,
    Instructions,
    Method,
    Model,
    Name,
    Runtime,
    Select,
    Shape,
    Strict,
    Tokenizer,
    Tokens,
)
from colpipe.config.sizing import Budget, automatic_alpha
from colpipe.config.stages import (
    Answers,
    Bridge,
    Distill,
    Elastic,
    Export,
    Fit,
    Order,
    Pretrain,
    Recover,
    Scores,
    Sft,
    Stack,
    Task,
)

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


class Stages(Strict):
    """Settings of the stages; members, DesNets and tasks may override single keys."""

    pretrain: Pretrain | None = None
    """Pre-training of models given by a `shape`; needed where there is one."""
    sft: Sft | None = None
    """Supervised fine-tuning of ancestors and pre-trained members; `null`, or a study without instructions: they are taken
    as they are."""
    answers: Answers | None = None
    """Answers of heterogeneous ancestors; needed where there is a bridge."""
    bridge: Bridge = Bridge()
    """SeqKD into the bridge."""
    order: Order | None = None
    """The importance pass; needed by `select: rank` and `rotate`."""
    fit: Fit | None = None
    """Fitted cuts: of `start: fit` and `method: fit`."""
    distill: Distill = Distill()
    """Stepwise distillation."""
    recover: Recover | None = None
    """Recovery pre-training; of DesNets with a budget above 0."""
    evaluate: Scores = Scores()
    """Scores of all models."""
    export: Export = Export()
    """GGUF files of DesNets: of the target `exported`, or of the report too."""


class Ancestor(Strict):
    """A large model that the chain descends from."""

    model: Name
    """The ancestor."""
    bridge: Name | None = None
    """Model of the chain's architecture that learns from the ancestor's answers; for an ancestor of another family or
    vocabulary."""
    start: Literal["fit", "inherit", "scratch"] | None = None
    """How all members of this ancestor's chain start, whatever `chain` says."""
    select: Select = "rank"
    """What a subset keeps. `first`: the first layers, channels, heads, units; `even`: evenly spaced layers, the first of
    the rest; `rank`: the most important of each, measured by stage `order`; `rotate`: the principal components of the
    residual stream (RMSNorm before blocks only), the most important of the rest. Keep the head untied with `rotate`.
    Left out, `rotate` where the head is untied and the family can be turned so, and `even` where a member starts from a
    model of its own, whose layers nothing has ranked, or in a study without corpora."""
    teacher: Literal["previous", "ancestor"] = "previous"
    """Who teaches a member: the member before it (stepwise, §3.3), or always the ancestor or its bridge (direct)."""
    distill: dict[str, Any] = {}
    """Keys of `stages.distill` that this ancestor's chain overrides; a member's own come last."""
    elastic: bool | Elastic | None = None
    """Whether, and how, all members of its chain are elastic, whatever `chain` says."""
    members: list[Name] | None = None
    """Make its chain of these members only, in the order of `chain` (Table 6); `null` is all of them."""
    desnets: list[Name] | None = None
    """Build these DesNets from its chain only; `null` is all of them."""
    initialisers: list[Name] | None = None
    """Build them with these initialisers only, of those that each has; `null` is all of them."""
    budgets: list[Tokens] | None = None
    """Recover its DesNets with these of the study's budgets only; `null` is all of them."""
    tasks: list[Name] | None = None
    """Score its members and DesNets on these tasks only; `null` is all of them."""


class Member(Strict):
    """A checkpoint of the learngene chain."""

    shape: Shape
    """Its size; also for pre-trained members, so that everything can be planned before anything is fetched."""
    start: Literal["fit", "inherit", "pretrained", "scratch"] = "fit"
    """`inherit`: as the subset of its teacher; `fit`: as this subset, what its layers write fitted to the teacher on a
    little text (`stages.fit`); `pretrained`: from `model`, the default of members that name one; `scratch`: from a model of
    its shape that is pre-trained here. Left out in a study without corpora, `inherit`."""
    model: Name | None = None
    """The model that a pre-trained member starts from."""
    distill: dict[str, Any] = {}
    """Keys of `stages.distill` that this member overrides."""
    elastic: bool | Elastic = False
    """Distil it together with smaller shapes inside it, so that DesNets can be cut out (method `cut`); `true` is down to the
    next member, with the defaults."""

    @model_validator(mode="after")
    def model_if_pretrained(self) -> "Member":
        if (self.start == "pretrained") != (self.model is not None):
            raise ValueError(f"start {self.start!r} with model {self.model!r}: model goes with start 'pretrained' only")
        return self


class DesNet(Budget):
    """A descendant: a model of any size between two members of the chain, or below its smallest."""

    shape: Shape | None = None
    """Its size; left out, the shape that meets `params` or `memory` within 1 %, its depth and width between those of its
    neighbours."""
    alpha: Fraction | list[Fraction] | None = None
    """Overrides the initialisers' alpha for this DesNet; a list has a value per layer."""
    initialisers: list[Name] | None = None
    """Build it with these only; `null` is all of them."""
    budgets: list[Tokens] | None = None
    """Recover it with these of the study's budgets only; `null` is all of them."""

    @model_validator(mode="after")
    def one_size(self) -> "DesNet":
        given = [key for key in ("shape", "params", "memory") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'no size'}: give exactly one of shape, params and memory")
        return self


class Initialiser(Strict):
    """How a DesNet gets its first weights."""

    kind: InitialiserKind
    """`linit`: interpolated from its two neighbours of the chain. `single`: its smaller neighbour expanded. `subset`: its
    larger neighbour cut. `hypercloning`: the largest member that fits its widths a whole number of times, multiplied.
    `auto-learngene`, `vanilla-learngene`: the first or last three layers of the ancestor (or its bridge), others random; a
    DesNet of the ancestor's width. `distilled`: no chain at all, a distillation of its own (Figure 5a). `rand`: random, the
    baseline, shared by all ancestors."""
    method: Method = "fit"
    """Of `linit`, and of `single` and `subset`, whose default is `paper`. `paper`: α · expand(smaller) + (1 − α) ·
    subset(larger) (§3.4). `nested`: mixed where both have an index, the larger's own elsewhere. `aligned`: nested, after the
    larger's channels, heads and units were matched to the smaller's. `lossless`: nested, the smaller grown without changing
    its function (`single` knows it too). `cut`: the shape as it was trained inside the larger neighbour, which must be
    elastic; nothing is mixed. `fit`: a subset of the larger neighbour (of an elastic one, the shape as it was trained
    inside), what its layers write fitted to the neighbour on a little text (`stages.fit`); nothing is mixed (`subset` knows
    it too). Left out of `linit`, `fit`; but `nested` beside an `alpha` or a `compensate`, and in a study without corpora;
    with `preset: paper`, `paper`."""
    alpha: Fraction | Literal["auto", "search"] = "auto"
    """Weight of the smaller neighbour; `auto` = (P_large − P) / (P_large − P_small); `search`: the alpha and compensation
    with the lowest loss on the validation text of the first corpus under `perplexity`, no training."""
    compensate: Fraction = 0.0
    """Exponent g of the factor (hidden of the larger / hidden of the DesNet)^g on the larger's norm gains."""
    teacher: Literal["ancestor", "shared"] = "ancestor"
    """`distilled`: who teaches, and of whom it starts as the subset: the ancestor or its bridge, or (`shared`) the teacher
    of the DesNet's larger neighbour, as if the DesNet were a member in its place."""
    distill: dict[str, Any] = {}
    """`distilled`: keys of `stages.distill` that it overrides, after the ancestor's."""
    budgets: list[Tokens] | None = None
    """Recover DesNets built with it with these of the study's budgets only; `null` is all of them."""
    tasks: list[Name] | None = None
    """Score DesNets built with it on these tasks only, of those of the ancestor; `null` is all of them."""


class Study(Strict):
    """A study: ancestors, one chain, DesNets, and how they are made and judged."""

    study: Name
    """Name; results go to `results/<study>/`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    preset: Literal["paper"] | None = None
    """`paper`: where the study makes no choice, the paper's instead of the defaults, those of MiniLLM with it
    (`colpipe/config/presets.py`)."""
    architecture: Architecture = Architecture()
    """Architecture of the chain, its bridges and DesNets."""
    tokenizer: Tokenizer = Tokenizer.model_construct(train=None, model="")
    """Tokenizer of the chain; left out, that of the first ancestor, or of its bridge where it has one."""
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
    """Initialisers by name; every DesNet is built with each. Left out, one of `linit` with its default method."""
    budgets: list[Tokens] = [0]
    """Recovery budgets, tokens (`78M` is understood); 0 is the DesNet as assembled."""
    tasks: dict[Name, Task] = {}
    """Benchmarks by name."""
    stacks: dict[Name, Stack] = {}
    """Stacks of small models by name (Table 12)."""
    perplexity: list[Name] = []
    """Corpora whose test text every model is scored on: loss, perplexity, bits per byte."""
    paper: dict[Name, Name] = {}
    """What stands here for a name of the paper's tables and figures (`colpipe/config/paper.yaml`): ancestors, members,
    DesNets, initialisers, budgets, tasks. Names that are the same in this study need no entry."""
    stages: Stages
    """Settings of the stages."""
    runtime: Runtime = Runtime()
    """Where and how it runs; changes no result."""

    # What depends on what: read by the Snakefile, so that every stage is data.

    def members(self, ancestor: str | None = None) -> list[str]:
        """Names of the chain's members, largest first; of those in an ancestor's chain where it has fewer."""
        limits = self.ancestors[ancestor].members if ancestor in self.ancestors else None
        return [member for member in self.chain if _within(member, limits)]

    def is_bridged(self, model: str) -> bool:
        """Whether a model is an ancestor that has a bridge, and so a tokenizer of its own."""
        return any(ancestor.model == model and ancestor.bridge for ancestor in self.ancestors.values())

    def teacher(self, ancestor: str, member: str) -> str | None:
        """The member before this one; None where the ancestor or its bridge is the teacher: of the first, or of all."""
        members = self.members(ancestor)
        position = members.index(member)
        return members[position - 1] if position and self.ancestors[ancestor].teacher == "previous" else None

    def start(self, ancestor: str, member: str) -> str:
        """How a member starts, in an ancestor's chain."""
        return self.ancestors[ancestor].start or self.chain[member].start

    def inherits(self, ancestor: str, member: str) -> bool:
        """Whether a member starts as a subset of its teacher, fitted or not."""
        return self.start(ancestor, member) in ("fit", "inherit")

    def fits(self, initialiser: str) -> bool:
        """Whether DesNets of an initialiser are fitted cuts."""
        return self.initialisers[initialiser].method == "fit"

    def has_fitted(self) -> bool:
        """Whether any member starts, or any DesNet is built, as a fitted cut."""
        return any(
            any(self.start(ancestor, member) == "fit" for member in self.members(ancestor))
            or any(self.fits(initialiser) for _, initialiser, _ in self.builds_of(ancestor))
            for ancestor in self.ancestors
        )

    def mixes(self, initialiser: str) -> bool:
        """Whether DesNets of an initialiser are mixed from two neighbours."""
        settings = self.initialisers[initialiser]
        return settings.kind == "linit" and settings.method not in ("cut", "fit")

    def distill_settings(self, ancestor: str, member: str) -> Distill:
        """Distillation settings of one member, the overrides of ancestor and member applied."""
        return self._distill(self.ancestors[ancestor].distill, self.chain[member].distill)

    def elastic(self, ancestor: str, member: str) -> Elastic | None:
        """How a member is elastic, its smallest shape and alignment filled in; None where it is not. The last member of a
        chain has a smaller one only where its settings name it."""
        wanted, members = self.ancestors[ancestor].elastic, self.members(ancestor)
        wanted = self.chain[member].elastic if wanted is None else wanted
        if not wanted:
            return None
        settings, last = Elastic() if wanted is True else wanted, member == members[-1]
        if settings.smallest is None and last:
            return None
        smallest = settings.smallest or self.chain[members[members.index(member) + 1]].shape
        return settings.model_copy(update={"smallest": smallest, "align": settings.align or self.architecture.align})

    def desnet_distill_settings(self, ancestor: str, initialiser: str | None = None) -> Distill:
        """Distillation settings of a DesNet that is distilled on its own; its teacher runs beside it."""
        own = self.initialisers[initialiser].distill if initialiser else {}
        return self._distill(self.ancestors[ancestor].distill, {"signal": None}, own)

    def _distill(self, *overrides: dict[str, Any]) -> Distill:
        settings = self.stages.distill.model_dump()
        for each in overrides:
            settings |= {**each, "rollout": settings["rollout"] | each.get("rollout", {})}
        return Distill.model_validate(settings)

    def students_of(self, ancestor: str, teacher: str | None) -> list[str]:
        """The members that a teacher has."""
        return [member for member in self.members(ancestor) if self.teacher(ancestor, member) == teacher]

    def parameters(self, shape: Shape) -> int:
        """Parameter count of a shape in the study's architecture."""
        return self.architecture.parameters(shape)

    def builds_of(self, ancestor: str) -> Iterator[tuple[str, str, int]]:
        """(DesNet, initialiser, recovery tokens) of all that is built from an ancestor's chain."""
        limits = self.ancestors[ancestor]
        for name, desnet in self.desnets.items():
            for init in self.initialisers_of(name):
                if _within(name, limits.desnets) and _within(init, limits.initialisers):
                    chosen = limits.budgets, desnet.budgets, self.initialisers[init].budgets
                    for tokens in self.budgets:
                        if all(_within(tokens, each) for each in chosen):
                            yield name, init, tokens

    def initialisers_of(self, desnet: str) -> list[str]:
        """Names of the initialisers that a DesNet is built with."""
        chosen = self.desnets[desnet].initialisers
        return list(self.initialisers) if chosen is None else chosen

    def tasks_of(self, ancestor: str, initialiser: str) -> list[str]:
        """Names of the tasks that a model is scored on, by its ancestor and initialiser, either of which may be no such."""
        found = list(self.tasks)
        for section, name in ((self.ancestors, ancestor), (self.initialisers, initialiser)):
            if name in section:
                found = [task for task in found if _within(task, section[name].tasks)]
        return found

    def neighbours(self, desnet: str, ancestor: str | None = None) -> tuple[str | None, str | None]:
        """The members that a DesNet is built from: (smaller, larger); in an ancestor's chain where it has fewer members.

        The larger is the smallest member that is at least as large. Below the chain's smallest there is no smaller one, a
        plain subset; above its largest there is no larger one.
        """
        return self.members_around(self.parameters(self.desnets[desnet].shape), ancestor)

    def members_around(self, parameters: int, ancestor: str | None = None) -> tuple[str | None, str | None]:
        smaller = None
        for member in reversed(self.members(ancestor)):
            if self.parameters(self.chain[member].shape) >= parameters:
                return smaller, member
            smaller = member
        return smaller, None

    def hypercloning_source(self, desnet: str, ancestor: str | None = None) -> str | None:
        """The largest member that HyperCloning can multiply to a DesNet, or None."""
        target = self.architecture.sizes(self.desnets[desnet].shape)
        for member in self.members(ancestor):
            sizes = self.architecture.sizes(self.chain[member].shape)
            fits = all(target[axis] % sizes[axis] == 0 for axis in self.architecture.table.widths)
            if fits and sizes["layer"] <= target["layer"] and sizes["head_dim"] == target["head_dim"]:
                return member
        return None

    def alpha(self, desnet: str, initialiser: str, ancestor: str | None = None) -> float | list[float] | str | None:
        """Weight of the smaller neighbour, or `search`; None where nothing is interpolated."""
        kind, (smaller, larger) = self.initialisers[initialiser], self.neighbours(desnet, ancestor)
        if not self.mixes(initialiser) or smaller is None or larger is None:
            return None
        if self.desnets[desnet].alpha is not None:
            return self.desnets[desnet].alpha
        if kind.alpha != "auto":
            return kind.alpha
        small, large = (self.parameters(self.chain[name].shape) for name in (smaller, larger))
        return automatic_alpha(small, large, self.parameters(self.desnets[desnet].shape))


def _within(value: object, chosen: list | None) -> bool:
    return chosen is None or value in chosen
