"""What every job of a study has to do, from settings and from data as far as it is there: tokens, operations, memory.

One source for what jobs ask a machine for (`needs.py`) and for what is told before a run (`estimate.py`). Nothing is loaded,
and there is no torch here.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from colpipe.architectures import FAMILIES, Family
from colpipe.cost import (
    FUSED_HEAD,
    HEAP,
    HEAP_CHECKPOINTED,
    REAL,
    TRAINING,
    Forward,
    forward,
    inference_memory,
    training_memory,
    unknown_forward,
)
from colpipe.data.prompts import prompt
from colpipe.plan import ORIGIN, Plan
from colpipe.settings import Architecture, Runtime, Shape
from colpipe.stage_settings import Distill, Elastic, Task, Training

EXACT, AT_MOST, ASSUMED = "", "≤", "?"  # how sure a number is, the surest first
UNKNOWN = 8_000_000_000  # parameters of an ancestor that is not fetched yet
UNSEEN = 100_000_000  # tokens of data that are not prepared yet
SAMPLE = 500  # rows of instructions that are looked at for their lengths
BYTES_A_TOKEN = 4.0  # where no prepared corpus says how many
PROCESS = 550_000_000  # bytes: Python, torch and its libraries before there is a model (measured: 490 to 560 MB)
VALIDATION_ITEMS = 128  # of each data set, scored at each evaluation during training
SCORED = 4096  # tokens of a batch for perplexity
CHOICES = 4  # of a row, where no row is there yet
SEARCHED, CANDIDATES = 8192, 33  # `alpha: search`: tokens for each candidate, and how many there are
SAMPLED = ("minillm", "on_policy")
RULES = (
    *("fetch_model", "fetch_dataset", "train_tokenizer", "prepare_corpus", "prepare_instructions", "pretrain", "sft"),
    *("bridge_answers", "bridge", "order", "teacher_signal", "distill", "distill_desnet", "assemble", "recover"),
    *("stack", "evaluate", "leakage"),
)  # in the order of the workflow


class Model(NamedTuple):
    """What is known of a model before it is loaded."""

    parameters: int
    forward: Forward
    family: Family | None = None
    sizes: dict[str, int] | None = None
    tied: bool = False
    bound: str = EXACT

    @property
    def vocabulary(self) -> int:
        return self.sizes["vocabulary"] if self.sizes else 0


@dataclass(frozen=True)
class Data:
    """Rows of a data set: how many, and the (prompt, answer) tokens of some of them."""

    rows: float
    lengths: tuple[tuple[float, float], ...]
    bound: str = EXACT

    def cut(self, length: int) -> "Data":
        """Rows are cut to `length`; those whose prompt fills it are left out."""
        kept = tuple((asked, min(answer, length - asked)) for asked, answer in self.lengths if asked < length)
        share = len(kept) / len(self.lengths) if self.lengths else 0
        return replace(self, rows=self.rows * share, lengths=kept)


@dataclass(frozen=True)
class Work:
    """What one job does.

    Attributes:
        tokens: that go through a model, each model and pass counted, padding too.
        memory: bytes in use at the peak by its models, beside the process itself.
        heap: what main memory takes for each of these.
        trained, read: parameters of the model that learns, and of those that are only read.
        bound: how sure tokens and flops are: `EXACT`, `AT_MOST` (an upper bound), `ASSUMED` (data or a model is unknown).
    """

    tokens: float = 0
    flops: float = 0
    memory: float = 0
    heap: float = 1.0
    trained: int = 0
    read: int = 0
    precision: str = "float32"
    bound: str = EXACT

    def __add__(self, other: "Work") -> "Work":
        """One after the other in one job."""
        return replace(
            self,
            tokens=self.tokens + other.tokens,
            flops=self.flops + other.flops,
            memory=max(self.memory, other.memory),
            heap=max(self.heap, other.heap),
            trained=max(self.trained, other.trained),
            read=max(self.read, other.read),
            bound=worst(self.bound, other.bound),
        )

    @property
    def main_memory(self) -> float:
        """Bytes of main memory that a process on a CPU holds at its peak."""
        return PROCESS + self.heap * self.memory


def worst(*bounds: str) -> str:
    return max(bounds, key=(EXACT, AT_MOST, ASSUMED).index, default=EXACT)


# Jobs


class JobName(NamedTuple):
    rule: str
    wildcards: SimpleNamespace
    folder: str


def jobs(plan: Plan, folders: Iterable[str] | None = None) -> list[JobName]:
    """Every job that makes these folders, inputs first; of the whole study, where none are given."""
    if folders is None:
        folders = [folder for _, folder in plan.parents("report")]
    found: dict[str, JobName] = {}
    waiting = [(folder, False) for folder in folders]
    while waiting:
        folder, ready = waiting.pop()
        if folder in found:
            continue
        job = job_of(plan, folder)
        if ready:
            found[folder] = job
        else:
            waiting.append((folder, True))
            if job.rule not in ("fetch_model", "fetch_dataset"):
                waiting += [(parent, False) for _, parent in plan.parents(job.rule, job.wildcards)]
    return list(found.values())


def job_of(plan: Plan, folder: str) -> JobName:
    """The job that makes a folder."""
    study = plan.study

    def named(rule: str, **wildcards: str) -> JobName:
        return JobName(rule, SimpleNamespace(**wildcards), folder)

    if Path(folder).parts[0] == "resources":
        return named("fetch_model" if Path(folder).parts[1] == "models" else "fetch_dataset", staged=Path(folder).name)
    match Path(folder).relative_to(plan.results).parts:
        case ("tokenizer",):
            return named("train_tokenizer")
        case ("data", name) if name in study.corpora:
            return named("prepare_corpus", corpus=name)
        case ("data", name):
            return named("prepare_instructions", instructions=name)
        case ("pretrained" | "sft" as kind, start):
            return named({"pretrained": "pretrain"}.get(kind, kind), start=start)
        case ("answers" | "bridges" | "ordered" as kind, ancestor):
            return named(
                {"answers": "bridge_answers", "bridges": "bridge", "ordered": "order"}[kind], ancestor=ancestor
            )
        case ("chain", ancestor, member):
            return named("distill", ancestor=ancestor, member=member)
        case ("signals", ancestor, teacher):
            return named("teacher_signal", ancestor=ancestor, teacher=teacher)
        case ("desnets", ancestor, desnet, init, "0"):
            rule = "distill_desnet" if study.initialisers[init].kind == "distilled" else "assemble"
            return named(rule, ancestor=ancestor, desnet=desnet, init=init)
        case ("desnets", ancestor, desnet, init, budget):
            return named("recover", ancestor=ancestor, desnet=desnet, init=init, budget=budget)
        case ("scores", "stacks", stack):
            return named("stack", stack=stack)
        case ("scores", *model):
            return named("evaluate", model="/".join(model))
    return named(Path(folder).name)


def work(plan: Plan, rule: str, wildcards: object) -> Work:
    """What a job does; nothing that counts where no model is at work."""
    parents = dict(plan.parents(rule, wildcards)) if rule not in ("fetch_model", "fetch_dataset") else {}
    builder = _BUILDERS.get(rule)
    models = [model_in(plan, folder) for role, folder in parents.items() if role in ROLES]
    done = builder(plan, parents, wildcards) if builder else Work()
    if not done.trained:
        done = replace(done, read=sum(model.parameters for model in models))
    return done


# Models

ROLES = ("teacher", "ordered", "smaller", "larger", "source", "model", "student")


def model_in(plan: Plan, folder: str) -> Model:
    """The model in a folder that may not be there yet."""
    study, parts = plan.study, Path(folder).parts[2:]
    match parts:
        case ("desnets", _, name, *_):
            return of_shape(study.architecture, study.desnets[name].shape)
        case ("bridges" | "ordered", ancestor):
            name = study.ancestors[ancestor].bridge or study.ancestors[ancestor].model
        case (*_, name):  # a member, a model that was pre-trained or fine-tuned, or a fetched one
            name = next((model for model, path in plan.fetched.items() if path == folder), name)
    shape = {**study.models, **study.chain}[name].shape
    return of_shape(study.architecture, shape) if shape else published(Path(plan.fetched[name]))


def of_shape(architecture: Architecture, shape: Shape) -> Model:
    """A model of the chain's architecture."""
    sizes = architecture.sizes(shape)
    return _of_sizes(architecture.table, sizes, architecture.is_tied)


def _of_sizes(family: Family, sizes: dict[str, int], tied: bool) -> Model:
    return Model(family.parameters(sizes, tied), forward(family, sizes), family, sizes, tied)


def published(folder: Path) -> Model:
    """A fetched model, from its `config.json`; from the sizes of its files where its family has no table."""
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return Model(UNKNOWN, unknown_forward(UNKNOWN), bound=ASSUMED)
    if family := FAMILIES.get(config.get("model_type")):
        return _of_sizes(family, family.sizes(config), family.is_tied(config))
    half = (config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16")
    size = sum(entry["bytes"] for name, entry in files.items() if name.endswith(".safetensors")) // (2 if half else 4)
    return Model(size, unknown_forward(size), bound=ASSUMED)


# Data


def corpus(plan: Plan, name: str, split: str, length: int, tokens: int | None = None) -> Data:
    """Blocks of a corpus; every token of one but the first carries loss."""
    found, bound = _counts(Path(plan.data(name))), EXACT
    there = found[split]["tokens"] if found else None
    if there is None:
        there, bound = (tokens, EXACT) if tokens else (UNSEEN, ASSUMED)
        if split != "train":
            there, bound = 0.03 * UNSEEN, ASSUMED
    return Data(min(there, tokens or there) // length, ((1, length - 1),), bound)


def instructions(plan: Plan, name: str, split: str, foreign: bool = False) -> Data:
    """Rows of instructions: as they are where they are prepared, else the most that the settings let through.

    Args:
        foreign: read with another tokenizer than the chain's.
    """
    settings, folder = plan.study.instructions[name], Path(plan.data(name))
    path, counts = folder / f"{split}.jsonl", _counts(folder)
    if not counts or not path.exists():
        limit = settings.train_rows if split == "train" else settings.test_rows
        rows = limit or UNSEEN // settings.max_tokens
        asked = settings.max_tokens // 2
        return Data(rows, ((asked, settings.max_tokens - asked),), AT_MOST if limit else ASSUMED)
    rows, stamp = counts[split]["rows"], path.stat().st_mtime_ns
    if foreign:
        return Data(rows, _lengths(path, stamp, BYTES_A_TOKEN), ASSUMED)
    return Data(rows, _lengths(path, stamp, _bytes_a_token(plan)))


@lru_cache(maxsize=64)
def _lengths(path: Path, stamp: int, bytes_a_token: float) -> tuple[tuple[float, float], ...]:
    """(prompt, answer) tokens of the first rows of a file, by their bytes."""
    return tuple(
        (
            len(prompt(row["instruction"], row["input"]).encode()) / bytes_a_token,
            len(row["output"].encode()) / bytes_a_token + 1,
        )
        for row in _sample(path, stamp)
    )


@lru_cache(maxsize=64)
def _sample(path: Path, stamp: int) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(SAMPLE), strict=False)]


def _counts(folder: Path) -> dict | None:
    """What a prepared data set's manifest says of its splits; None where it is not there."""
    try:
        stamp = (folder / "manifest.json").stat().st_mtime_ns
    except OSError:
        return None
    return _read_counts(folder, stamp)


@lru_cache(maxsize=64)
def _read_counts(folder: Path, stamp: int) -> dict | None:
    try:
        return json.loads((folder / "manifest.json").read_text()).get("counts")
    except (OSError, ValueError):  # being replaced, or damaged: the stage that reads it says so
        return None


def _bytes_a_token(plan: Plan) -> float:
    for name in plan.study.corpora:
        if found := _counts(Path(plan.data(name))):
            return found["train"]["bytes"] / found["train"]["tokens"]
    return BYTES_A_TOKEN


def _mixed(plan: Plan, names: Iterable[str], split: str, length: int) -> list[Data]:
    """Corpora and instructions by name, as a training reads them."""
    study = plan.study
    return [
        corpus(plan, name, split, length) if name in study.corpora else instructions(plan, name, split).cut(length)
        for name in names
    ]


def longest(data: Iterable[Data], count: int) -> float:
    """The longest of so many rows that are drawn at random: what all of a batch are padded to. A mean."""
    weighted = sorted((sum(pair), each.rows / len(each.lengths)) for each in data for pair in each.lengths)
    whole, seen, mean = sum(weight for _, weight in weighted), 0.0, 0.0
    for length, weight in weighted:
        before, seen = seen, seen + weight
        mean += length * ((seen / whole) ** count - (before / whole) ** count) if whole else 0.0
    return mean


def _answers(data: Iterable[Data]) -> float:
    """Mean answer tokens of a row."""
    pairs = [(answer, each.rows / len(each.lengths)) for each in data for _, answer in each.lengths]
    whole = sum(weight for _, weight in pairs)
    return sum(answer * weight for answer, weight in pairs) / whole if whole else 0.0


# Passes


@dataclass(frozen=True)
class Pass:
    """How a training's rows go through its models.

    Attributes:
        head: forward passes that a training pass of the head costs.
        everywhere: whether logits of all positions are computed, or only of those with loss.
        teacher: runs beside the model.
        parts: smaller shapes that learn with it: how many at each step on average, and which.
    """

    runtime: Runtime
    head: int = TRAINING
    everywhere: bool = False
    teacher: Model | None = None
    parts: list[tuple[float, Model]] = field(default_factory=list)


def training(
    model: Model,
    data: list[Data],
    settings: Training,
    how: Pass,
    validation: list[Data] = (),
    rows: float | None = None,
) -> Work:
    """A training on rows of data, with its evaluations.

    Args:
        rows: how many rows are learnt from; None: what the settings say.
    """
    runtime, batch = how.runtime, settings.batch_size
    micro = min(runtime.micro_batch or batch, batch)
    if rows is None:
        rows = settings.steps * batch if settings.steps else settings.epochs * sum(each.rows for each in data)
    length, answers = longest(data, micro), _answers(data)
    logits = max(0, length - 1) if how.everywhere else answers
    learnt = [(1.0, model), *how.parts]
    flops = sum(
        share
        * (
            each.forward.trained(rows, length, runtime.gradient_checkpointing)
            + rows * logits * how.head * each.forward.head
        )
        for share, each in learnt
    )
    tokens = rows * length * sum(share for share, _ in learnt)
    read = REAL * how.teacher.parameters if how.teacher else 0
    if how.teacher:
        flops += how.teacher.forward.layers(rows, length) + rows * logits * how.teacher.forward.head
        tokens += rows * length
    work = Work(
        tokens=tokens,
        flops=flops,
        memory=_held(model, micro, length, micro * logits, settings, how) + read,
        heap=HEAP_CHECKPOINTED if runtime.gradient_checkpointing else HEAP,
        trained=model.parameters,
        read=how.teacher.parameters if how.teacher else 0,
        precision=settings.precision,
        bound=worst(model.bound, *(each.bound for each in data)),
    )
    if settings.evaluations and validation:
        chosen = [replace(each, rows=min(VALIDATION_ITEMS, each.rows)) for each in validation]
        seen = [model, *([how.teacher] if how.teacher else []), *[each for _, each in how.parts[:1]]]
        once = scoring(seen, chosen, micro, how.everywhere)
        times = settings.evaluations + 1
        work += replace(once, tokens=times * once.tokens, flops=times * once.flops)
    return work


def _held(model: Model, micro: float, length: float, logits: float, settings: Training, how: Pass) -> float:
    if model.family is None:  # weights, gradients, momenta; nothing is known of the rest
        return 4 * REAL * model.parameters
    return training_memory(
        model.family,
        model.sizes,
        model.tied,
        micro,
        length,
        logits,
        again=micro < settings.batch_size or bool(how.parts),
        checkpointed=how.runtime.gradient_checkpointing,
        taught=how.teacher is not None,
        padded=how.everywhere or isinstance(settings, Distill),
    )


def scoring(models: list[Model], data: list[Data], batch: float, everywhere: bool = False) -> Work:
    """One forward pass of some models over all rows of data."""
    rows, length = sum(each.rows for each in data), longest(data, max(1, round(batch)))
    logits = max(0, length - 1) if everywhere else _answers(data)
    vocabulary = max(model.vocabulary for model in models)
    return Work(
        tokens=rows * length * len(models),
        flops=sum(model.forward.layers(rows, length) + rows * logits * model.forward.head for model in models),
        memory=inference_memory(REAL * sum(model.parameters for model in models), vocabulary, batch * logits),
        bound=worst(*(each.bound for each in (*models, *data))),
    )


def generating(model: Model, data: Data, rows: float, new: float, batch: int) -> Work:
    """Answers of up to `new` tokens to the prompts of data; the bound is that none ends before."""
    asked = longest([replace(data, lengths=tuple((0, asked) for asked, _ in data.lengths))], batch)
    return Work(
        tokens=rows * (asked + max(0, new - 1)),
        flops=model.forward.generation(rows, asked, new),
        memory=inference_memory(REAL * model.parameters, model.vocabulary, batch),
        bound=worst(AT_MOST, model.bound, data.bound),
    )


# Rule by rule


def _pretrain(plan: Plan, parents: dict, wildcards) -> Work:
    study, settings = plan.study, plan.study.stages.pretrain
    owner = {**study.models, **study.chain}[wildcards.start]
    return pretraining(plan, of_shape(study.architecture, owner.shape), settings)


def _recover(plan: Plan, parents: dict, wildcards) -> Work:
    return pretraining(plan, model_in(plan, parents["model"]), plan.recover_settings(wildcards))


def pretraining(plan: Plan, model: Model, settings) -> Work:
    """Pre-training, or recovery, on the first tokens of a corpus."""
    data = corpus(plan, settings.corpus, "train", settings.max_length, settings.tokens)
    validation = corpus(plan, settings.corpus, "validation", settings.max_length)
    return training(model, [data], settings, Pass(plan.study.runtime), [replace(validation, bound=data.bound)])


def _fused(runtime: Runtime) -> Pass:
    """trl's output head: on all positions, except with CUDA, where only those with loss are projected."""
    return Pass(runtime, FUSED_HEAD, runtime.device != "cuda")


def _sft(plan: Plan, parents: dict, wildcards) -> Work:
    settings = plan.study.stages.sft
    model = model_in(plan, parents["model"])
    foreign = model.vocabulary != plan.study.architecture.vocabulary
    data, validation = (
        instructions(plan, settings.instructions, split, foreign).cut(settings.max_length)
        for split in ("train", "validation")
    )
    return training(model, [data], settings, _fused(plan.study.runtime), [validation])


def _answered(plan: Plan, foreign: bool = False) -> Data:
    """The prompts that an ancestor answers, with answers as long as they may be."""
    settings = plan.study.stages.answers
    data = instructions(plan, settings.instructions, "train", foreign)
    lengths = tuple((asked, settings.max_new_tokens) for asked, _ in data.lengths)
    if not settings.prompts:
        return Data(data.rows, lengths, worst(AT_MOST, data.bound))
    return Data(settings.prompts if data.bound == ASSUMED else min(settings.prompts, data.rows), lengths, AT_MOST)


def _bridge_answers(plan: Plan, parents: dict, wildcards) -> Work:
    settings, data = plan.study.stages.answers, _answered(plan, foreign=True)
    model = model_in(plan, parents["model"])
    done = generating(model, data, data.rows, settings.max_new_tokens, settings.batch_size)
    return replace(done, precision=settings.precision)


def _bridge(plan: Plan, parents: dict, wildcards) -> Work:
    settings, data = plan.study.stages.bridge, _answered(plan)
    held_out = min(VALIDATION_ITEMS, data.rows // 10)
    data, validation = (replace(data, rows=rows).cut(settings.max_length) for rows in (data.rows - held_out, held_out))
    return training(model_in(plan, parents["model"]), [data], settings, _fused(plan.study.runtime), [validation])


def _order(plan: Plan, parents: dict, wildcards) -> Work:
    settings, model = plan.study.stages.order, model_in(plan, parents["model"])
    data = corpus(plan, settings.corpus, "train", settings.max_length, settings.tokens)
    once = scoring([model], [data], 8, everywhere=True)
    return once + once + once  # measured, and its loss before and after


def _distill(plan: Plan, parents: dict, wildcards) -> Work:
    study = plan.study
    settings = study.distill_settings(wildcards.ancestor, wildcards.member)
    student = of_shape(study.architecture, study.chain[wildcards.member].shape)
    teacher = None if "signal" in parents else model_in(plan, parents["teacher"])
    return distillation(plan, student, teacher, settings, study.elastic(wildcards.ancestor, wildcards.member))


def _distill_desnet(plan: Plan, parents: dict, wildcards) -> Work:
    study = plan.study
    settings = study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
    student = of_shape(study.architecture, study.desnets[wildcards.desnet].shape)
    return distillation(plan, student, model_in(plan, parents["teacher"]), settings)


def distillation(
    plan: Plan, student: Model, teacher: Model | None, settings: Distill, elastic: Elastic | None = None
) -> Work:
    """One student's, from a teacher that runs beside it, or (None) whose signal is kept."""
    study = plan.study
    parts = parts_of(study.architecture, student, elastic) if elastic else []
    how = Pass(study.runtime, teacher=teacher, parts=parts)
    data, validation = (_mixed(plan, settings.data, split, settings.max_length) for split in ("train", "validation"))
    asked = [each for each, name in zip(data, settings.data, strict=True) if name in study.instructions]
    text = [each for each, name in zip(data, settings.data, strict=True) if name in study.corpora]
    prompts = [_within(each, settings.rollout.max_prompt) for each in asked]
    count = sum(each.rows for each in prompts)
    done = Work()
    if settings.objective in SAMPLED or settings.objective == "seqkd":
        answered = [_answered_to(each, settings.max_length) for each in prompts]
    if settings.objective in SAMPLED:
        rollout = settings.rollout
        passes = rollout.epochs or (4 if settings.objective == "minillm" else 1)
        rounds = -(-settings.epochs * count // rollout.size)
        rows = settings.steps * settings.batch_size if settings.steps else rounds * rollout.size * passes
        sampled = rollout.size * -(-rows // (rollout.size * passes))
        samplers = [student, *([teacher] if settings.objective == "minillm" and rollout.teacher_mix else [])]
        done = training(student, answered, settings, how, validation, rows)
        if text and settings.objective == "minillm":
            done += training(student, text, settings, replace(how, teacher=None), rows=rows)
        done += _asked(samplers, answered, sampled, rollout.batch_size)
    elif settings.objective == "seqkd":
        whole = count + sum(each.rows for each in text)
        share = min(1.0, settings.steps * settings.batch_size / whole) if settings.steps and whole else 1.0
        done = training(student, [*answered, *text], settings, how, validation)
        done += _asked([teacher], answered, share * count, settings.rollout.batch_size)
    else:
        done = training(student, data, settings, how, validation)
    if settings.evaluations and settings.answer_rows and asked:
        scored = sum(min(settings.answer_rows / len(asked), each.rows) for each in asked)
        for _ in range(settings.evaluations + 1):
            done += generating(student, asked[0], scored, settings.answer_tokens, settings.rollout.batch_size)
    return done


def _within(data: Data, most: int) -> Data:
    """The rows whose prompts are not longer than this."""
    kept = tuple(pair for pair in data.lengths if pair[0] <= most)
    return replace(data, rows=data.rows * len(kept) / max(1, len(data.lengths)), lengths=kept)


def _answered_to(data: Data, length: int) -> Data:
    """Answers as long as they may be."""
    return replace(
        data, lengths=tuple((asked, length - asked) for asked, _ in data.lengths), bound=worst(AT_MOST, data.bound)
    )


def _asked(models: list[Model], data: list[Data], rows: float, batch: int) -> Work:
    """Answers to prompts, every model running over each; as long as they may be."""
    whole, done = sum(each.rows for each in data), Work()
    for each in data if whole else ():
        for model in models:
            done += generating(model, each, rows * each.rows / whole, _answers([each]), batch)
    return done


def parts_of(architecture: Architecture, member: Model, elastic: Elastic) -> list[tuple[float, Model]]:
    """(how many at a step on average, model): the smallest, and the middle of the random ones."""
    smallest = of_shape(architecture, elastic.smallest)
    axes = {"layer": "layers", "head": "heads", "group": "heads", "hidden": "hidden", "ffn": "ffn"}
    middle = {
        axis: round((size + smallest.sizes[axis]) / 2) if axes.get(axis) in elastic.axes else size
        for axis, size in member.sizes.items()
    }
    random = _of_sizes(member.family, middle, member.tied)
    share = 1 - elastic.after
    return [(share * elastic.with_smallest, smallest), (share * elastic.random, random)]


def _teacher_signal(plan: Plan, parents: dict, wildcards) -> Work:
    settings = plan.teacher_signal_settings(wildcards)
    teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
    students = plan.study.taught_by(wildcards.ancestor, teacher)
    names = plan.study.distill_settings(wildcards.ancestor, students[0]).data
    batch, model = plan.study.runtime.micro_batch or 8, model_in(plan, parents["teacher"])
    data = _mixed(plan, names, "train", settings["max_length"])
    held = [
        replace(each, rows=min(VALIDATION_ITEMS, each.rows))
        for each in _mixed(plan, names, "validation", settings["max_length"])
    ]
    return scoring([model], data, batch) + scoring([model], held, batch)


def _assemble(plan: Plan, parents: dict, wildcards) -> Work:
    model = of_shape(plan.study.architecture, plan.study.desnets[wildcards.desnet].shape)
    if "corpus" not in parents:
        return Work(memory=REAL * model.parameters)
    block = min(plan.study.architecture.positions, SEARCHED)
    once = scoring([model], [Data(SEARCHED // block, ((1, block - 1),))], SCORED // block, everywhere=True)
    return replace(once, tokens=CANDIDATES * once.tokens, flops=CANDIDATES * once.flops, memory=3 * once.memory)


def _evaluate(plan: Plan, parents: dict, wildcards) -> Work:
    study, model = plan.study, model_in(plan, parents["model"])
    longest_row = model.sizes["position"] if model.sizes else study.architecture.positions
    done, tuned = Work(memory=REAL * model.parameters), set()
    for name in study.perplexity:
        data = corpus(plan, name, "test", longest_row)
        done += scoring([model], [data], max(1, SCORED // longest_row), everywhere=True)
    for task in plan.tasks_of(wildcards.model).values():
        key = (task.train or task.instructions, repr(task.fine_tune))
        if task.fine_tune and key not in tuned:
            tuned.add(key)
            data = instructions(plan, key[0], "train").cut(task.fine_tune.max_length)
            done += training(model, [data], task.fine_tune, _fused(study.runtime))
        done += _task(plan, model, task)
    return done


def _stack(plan: Plan, parents: dict, wildcards) -> Work:
    """Every step is fine-tuned on what the teacher writes, and writes for the test rows; the last one answers."""
    study, settings = plan.study, plan.study.stacks[wildcards.stack]
    model, teacher, done = model_in(plan, parents["model"]), model_in(plan, parents["teacher"]), Work()
    for name, task in plan.tasks_of(f"stacks/{wildcards.stack}").items():
        train, test = (instructions(plan, task.instructions, split) for split in ("train", "test"))
        train = replace(train, rows=min(train.rows, settings.train_rows))
        for step in range(len(settings.steps) + 1):
            learnt, asked = (_with_notes(data, step * settings.max_new_tokens) for data in (train, test))
            new = settings.max_new_tokens if step < len(settings.steps) else task.max_new_tokens
            done += training(
                model, [learnt.cut(settings.fine_tune.max_length)], settings.fine_tune, _fused(study.runtime)
            )
            done += generating(model, asked, asked.rows, new, 64)
            if step < len(settings.steps):
                done += generating(teacher, learnt, learnt.rows, new, 64)
    return done


def _with_notes(data: Data, tokens: int) -> Data:
    """Prompts with so many tokens more, at most."""
    lengths = tuple((asked + tokens, answer) for asked, answer in data.lengths)
    return replace(data, lengths=lengths, bound=worst(AT_MOST, data.bound))


def _task(plan: Plan, model: Model, task: Task) -> Work:
    """Answers to the test rows, and the likelihood of their choices."""
    data = instructions(plan, task.instructions, "test")
    done = generating(model, data, task.samples * data.rows, task.max_new_tokens, 64)
    if task.likelihood:
        path = Path(plan.data(task.instructions)) / "test.jsonl"
        choices = CHOICES
        if path.exists():
            rows = _sample(path, path.stat().st_mtime_ns)
            choices = sum(len(row.get("choices", ())) for row in rows) / max(1, len(rows))
        done += scoring([model], [replace(data, rows=choices * data.rows)], 32, everywhere=True)
    return done


_BUILDERS = {
    "pretrain": _pretrain,
    "sft": _sft,
    "bridge_answers": _bridge_answers,
    "bridge": _bridge,
    "order": _order,
    "distill": _distill,
    "distill_desnet": _distill_desnet,
    "teacher_signal": _teacher_signal,
    "assemble": _assemble,
    "recover": _recover,
    "stack": _stack,
    "evaluate": _evaluate,
}


def work_by_job(plan: Plan, folders: Iterable[str] | None = None) -> Iterator[tuple[JobName, Work]]:
    """Every job of a study, or that makes these folders, and what it does; rule by rule in the order of the workflow."""
    for job in sorted(jobs(plan, folders), key=lambda job: RULES.index(job.rule)):
        yield job, work(plan, job.rule, job.wildcards)
