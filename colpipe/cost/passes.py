"""What trainings, scorings and generations do: tokens, operations, memory (no torch here)."""

from dataclasses import dataclass, field, replace

from colpipe.cost.formulas import (
    FUSED_HEAD,
    GROWN,
    HEAP,
    HEAP_CHECKPOINTED,
    HEAP_SAMPLED,
    REAL,
    TRAINING,
    cache_memory,
    inference_memory,
    training_memory,
)
from colpipe.cost.inputs import (
    AT_MOST,
    EXACT,
    Data,
    Model,
    answer_tokens,
    corpus,
    longest,
    mixed,
    of_shape,
    of_sizes,
    worst,
)
from colpipe.plan import Plan
from colpipe.settings import Architecture, Runtime
from colpipe.stage_settings import Distill, Elastic, Training

PROCESS = 550_000_000  # bytes: Python, torch and its libraries before there is a model (measured: 490 to 560 MB)
VALIDATION_ITEMS = 128  # of each data set, scored at each evaluation during training
SAMPLED = ("minillm", "on_policy")


@dataclass(frozen=True)
class Work:
    """What one job does.

    Attributes:
        tokens: that go through a model, each model and pass counted, padding too.
        memory: bytes in use at the peak by its models, beside the process itself.
        heap: bytes that the heap of a process on a CPU holds for them, where these are more.
        trained, read: parameters of the model that learns, and of those that are only read.
        bound: how sure tokens and flops are: `EXACT`, `AT_MOST` (an upper bound), `ASSUMED` (data or a model is unknown).
    """

    tokens: float = 0
    flops: float = 0
    memory: float = 0
    heap: float = 0
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
        return PROCESS + max(self.memory, self.heap)


@dataclass(frozen=True)
class Pass:
    """How a training's rows go through its models.

    Attributes:
        head: forward passes that a training pass of the head costs.
        everywhere: whether logits of all positions are computed, or only of those with loss.
        teacher: runs beside the model.
        taught: whether it runs at every step, or for validation only.
        parts: smaller shapes that learn with it: how many at each step on average, and which.
    """

    runtime: Runtime
    head: int = TRAINING
    everywhere: bool = False
    teacher: Model | None = None
    taught: bool = True
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
    length, answers = longest(data, micro), answer_tokens(data)
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
    if how.teacher and how.taught:
        flops += how.teacher.forward.layers(rows, length) + rows * logits * how.teacher.forward.head
        tokens += rows * length
    held = _held(model, micro, length, micro * logits, settings, how)
    work = Work(
        tokens=tokens,
        flops=flops,
        memory=held + read,
        heap=(HEAP_CHECKPOINTED if runtime.gradient_checkpointing else HEAP) * held + read,
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
        taught=how.teacher is not None and how.taught,
        padded=how.everywhere or isinstance(settings, Distill),
    )


def scoring(models: list[Model], data: list[Data], batch: float, everywhere: bool = False) -> Work:
    """One forward pass of some models over all rows of data."""
    rows, length = sum(each.rows for each in data), longest(data, max(1, round(batch)))
    logits = max(0, length - 1) if everywhere else answer_tokens(data)
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
    read, cache = inference_memory(REAL * model.parameters, model.vocabulary, batch), _cache(model, batch, asked + new)
    return Work(
        tokens=rows * (asked + max(0, new - 1)),
        flops=model.forward.generation(rows, asked, new),
        memory=read + cache,
        heap=read + GROWN * cache,
        bound=worst(AT_MOST, model.bound, data.bound),
    )


def _cache(model: Model, rows: float, length: float) -> float:
    """Keys and values; none are known where the family has no table."""
    return cache_memory(model.sizes, rows, length) if model.sizes else 0


def pretraining(plan: Plan, model: Model, settings) -> Work:
    """Pre-training, or recovery, on the first tokens of a corpus."""
    data = corpus(plan, settings.corpus, "train", settings.max_length, settings.tokens)
    validation = corpus(plan, settings.corpus, "validation", settings.max_length)
    return training(model, [data], settings, Pass(plan.study.runtime), [replace(validation, bound=data.bound)])


def fused(runtime: Runtime) -> Pass:
    """trl's output head: on all positions, except with CUDA, where only those with loss are projected."""
    return Pass(runtime, FUSED_HEAD, runtime.device != "cuda")


def distillation(
    plan: Plan, student: Model, teacher: Model | None, settings: Distill, elastic: Elastic | None = None
) -> Work:
    """One student's, from a teacher that runs beside it, or (None) whose signal is kept."""
    study = plan.study
    parts = parts_of(study.architecture, student, elastic) if elastic else []
    how = Pass(study.runtime, teacher=teacher, parts=parts)
    data, validation = (mixed(plan, settings.data, split, settings.max_length) for split in ("train", "validation"))
    asked = [each for each, name in zip(data, settings.data, strict=True) if name in study.instructions]
    text = [each for each, name in zip(data, settings.data, strict=True) if name in study.corpora]
    prompts = [_within(each, settings.rollout.max_prompt) for each in asked]
    count = sum(each.rows for each in prompts)
    done, read = Work(), REAL * teacher.parameters if teacher else 0
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
        learning = 3 * REAL * student.parameters  # weights and momenta; gradients are gone between two steps
        done += _asked(samplers, answered, sampled, rollout.batch_size, learning + read)
        factor = HEAP_CHECKPOINTED if study.runtime.gradient_checkpointing else HEAP_SAMPLED
        done = replace(done, heap=factor * (done.memory - read) + read)
    elif settings.objective == "seqkd":
        whole = count + sum(each.rows for each in text)
        share = min(1.0, settings.steps * settings.batch_size / whole) if settings.steps and whole else 1.0
        done = training(student, [*answered, *text], settings, replace(how, taught=False), validation)
        held = REAL * student.parameters + read
        done += _asked([teacher], answered, share * count, settings.rollout.batch_size, held)
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


def _asked(models: list[Model], data: list[Data], rows: float, batch: int, held: float) -> Work:
    """Answers to prompts, every model running over each; as long as they may be.

    Args:
        held: bytes of the student and its teacher, whoever answers.
    """
    whole, done = sum(each.rows for each in data), Work()
    for each in data if whole else ():
        for model in models:
            done += generating(model, each, rows * each.rows / whole, answer_tokens([each]), batch)
        caches = sum(_cache(model, batch, longest([each], batch)) for model in models)
        read = inference_memory(held, max(model.vocabulary for model in models), batch * len(models))
        done += Work(memory=read + caches, heap=read + GROWN * caches)
    return done


def parts_of(architecture: Architecture, member: Model, elastic: Elastic) -> list[tuple[float, Model]]:
    """(how many at a step on average, model): the smallest, and the middle of the random ones."""
    smallest = of_shape(architecture, elastic.smallest)
    axes = {"layer": "layers", "head": "heads", "group": "heads", "hidden": "hidden", "ffn": "ffn"}
    middle = {
        axis: round((size + smallest.sizes[axis]) / 2) if axes.get(axis) in elastic.axes else size
        for axis, size in member.sizes.items()
    }
    random = of_sizes(member.family, middle, member.tied)
    share = 1 - elastic.after
    return [(share * elastic.with_smallest, smallest), (share * elastic.random, random)]
