"""What trainings, scorings and generations do: tokens, FLOPs, memory (no torch here)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from colpipe.architectures.flops import (
    BYTES,
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
from colpipe.config.constants import SAMPLED_OBJECTIVES, VALIDATION_ITEMS, logits_chunk
from colpipe.config.layout import Layout
from colpipe.config.parts import Architecture, Precision, Runtime
from colpipe.config.rollouts import rollouts_of
from colpipe.config.stages import Distill, Elastic, Recover, Training
from colpipe.cost.inputs import (
    AT_MOST,
    EXACT,
    Data,
    SizedModel,
    answer_tokens,
    corpus,
    instructions,
    least_sure,
    longest,
    mixed,
    of_shape,
    of_sizes,
)

PROCESS = 550_000_000  # bytes: Python, torch and its libraries before there is a model (measured: 490 to 560 MB)


@dataclass(frozen=True)
class Work:
    """What one job does.

    Attributes:
        tokens: that go through a model, each model and pass counted, padding too.
        memory: bytes in use at the peak by its models, beside the process itself.
        heap: bytes that the heap of a process on a CPU holds for them, where these are more.
        trained, read: parameters of the model that learns, and of those that are only read.
        precision: of the weights that are only read.
        in_bfloat16: of the FLOPs, those in bfloat16.
        bound: how sure tokens and flops are: `EXACT`, `AT_MOST` (an upper bound), `ASSUMED` (data or a model is unknown).
    """

    tokens: float = 0
    flops: float = 0
    memory: float = 0
    heap: float = 0
    trained: int = 0
    read: int = 0
    precision: Precision = "float32"
    in_bfloat16: float = 0
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
            in_bfloat16=self.in_bfloat16 + other.in_bfloat16,
            bound=least_sure(self.bound, other.bound),
        )

    def at(self, precision: Precision) -> "Work":
        """The same, all of it in this precision."""
        return replace(self, precision=precision, in_bfloat16=self.flops if precision == "bfloat16" else 0)

    @property
    def flops_by_precision(self) -> dict[str, float]:
        return {"float32": self.flops - self.in_bfloat16, "bfloat16": self.in_bfloat16}

    @property
    def main_memory(self) -> float:
        """Bytes of main memory that a process on a CPU holds at its peak."""
        return PROCESS + max(self.memory, self.heap)


@dataclass(frozen=True)
class Pass:
    """How a training's rows go through its models.

    Attributes:
        head: forward passes that a training pass of the head costs, where there is loss.
        elsewhere: the same at all other positions.
        teacher: runs beside the model.
        taught: whether it runs at every step, or for validation only.
        submodels: smaller shapes that learn with it: how many at each step on average, and which.
    """

    runtime: Runtime
    head: int = TRAINING
    elsewhere: int = 0
    teacher: SizedModel | None = None
    taught: bool = True
    submodels: list[tuple[float, SizedModel]] = field(default_factory=list)


def training(
    model: SizedModel,
    data: list[Data],
    settings: Training,
    how: Pass,
    validation: Sequence[Data] = (),
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
    others, everywhere = max(0, length - 1 - answers), how.elsewhere == how.head
    logits = answers + others * everywhere
    learnt = [(1.0, model), *how.submodels]
    flops = sum(
        share
        * (
            each.forward.trained(rows, length, runtime.gradient_checkpointing)
            + rows * (answers * how.head + others * how.elsewhere) * each.forward.head
        )
        for share, each in learnt
    )
    tokens = rows * length * sum(share for share, _ in learnt)
    read = how.teacher.weights if how.teacher else 0
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
        bound=least_sure(model.bound, *(each.bound for each in data)),
    )
    if settings.evaluations and validation:
        chosen = [replace(each, rows=min(VALIDATION_ITEMS, each.rows)) for each in validation]
        seen = [model, *([how.teacher] if how.teacher else []), *[each for _, each in how.submodels[:1]]]
        once = scoring(seen, chosen, micro, everywhere)
        times = settings.evaluations + 1
        work += replace(once, tokens=times * once.tokens, flops=times * once.flops)
    return work.at(settings.precision)


def _held(model: SizedModel, micro: float, length: float, logits: float, settings: Training, how: Pass) -> float:
    if model.family is None:  # weights, gradients, optimizer state; nothing is known of the rest
        return 4 * REAL * model.parameters
    device = how.runtime.device
    return training_memory(
        model.family,
        model.sizes,
        model.tied,
        micro,
        length,
        logits,
        chunk=logits_chunk("cpu" if device == "auto" else device).projected,  # main memory counts where none is named
        again=micro < settings.batch_size or bool(how.submodels),
        checkpointed=how.runtime.gradient_checkpointing,
        taught=how.teacher is not None and how.taught,
        padded=how.elsewhere > 0 or isinstance(settings, Distill),
    )


def scoring(models: list[SizedModel], data: list[Data], batch: float, everywhere: bool = False) -> Work:
    """One forward pass of some models over all rows of data."""
    rows, length = sum(each.rows for each in data), longest(data, max(1, round(batch)))
    logits = max(0, length - 1) if everywhere else answer_tokens(data)
    vocabulary = max(model.vocabulary for model in models)
    return Work(
        tokens=rows * length * len(models),
        flops=sum(model.forward.layers(rows, length) + rows * logits * model.forward.head for model in models),
        memory=inference_memory(sum(model.weights for model in models), vocabulary, batch * logits),
        bound=least_sure(*(model.bound for model in models), *(each.bound for each in data)),
    )


def fitting(source: SizedModel, cut: SizedModel, data: Data, batch: int, precision: Precision = "float32") -> Work:
    """A cut is fitted to its source: both run over all rows, with float32 weights; a linear system for each projection.

    The system of n inputs takes 5 n² numbers of float64 while it is solved, and up to 4 for each input and channel
    (measured).

    Args:
        precision: of the layers, and of what their change adds to the stream; sums over tokens are in float32.
    """
    length, sizes = longest([data], batch), cut.sizes or {}
    tokens, widths = data.rows * length, [sizes["head"] * sizes["head_dim"], sizes["ffn"]]
    if cut.family and cut.family.defaults.get("use_parallel_residual"):  # GPT-NeoX: both in one system
        widths = [sum(widths)]
    systems = sum(2 * tokens * (width + sizes["hidden"]) * width + width**3 for width in widths)
    changes = sum(2 * tokens * sizes["hidden"] * width for width in widths)
    layers = sum(model.forward.layers(data.rows, length) for model in (source, cut)) + sizes["layer"] * changes
    return Work(
        tokens=2 * tokens,
        flops=layers + sizes["layer"] * systems,
        memory=REAL * (source.parameters + cut.parameters + 8 * batch * length * max(widths))
        + 8 * max(widths) * (5 * max(widths) + 4 * sizes["hidden"]),
        read=source.parameters,
        in_bfloat16=layers if precision == "bfloat16" else 0,
        bound=least_sure(source.bound, data.bound),
    )


def measuring(model: SizedModel, data: Data, batch: int, precision: Precision = "float32") -> Work:
    """A model runs over all rows, and its layers once more; what they read and write is summed up, and of each layer the
    feed-forward units are put into order, by an inverse that 5 n² numbers of float64 are held for.

    Args:
        precision: of the layers; the rest is in float32 and float64.
    """
    length, sizes = longest([data], batch), model.sizes or {"layer": 0, "hidden": 0, "ffn": 0}  # not known yet
    tokens, hidden, ffn = data.rows * length, sizes["hidden"], sizes["ffn"]
    sums = 2 * tokens * ((2 * sizes["layer"] + 1) * hidden**2 + sizes["layer"] * ffn**2)
    layers = 2 * model.forward.layers(data.rows, length)
    return Work(
        tokens=2 * tokens,
        flops=layers + sums + 2 * sizes["layer"] * ffn**3,
        memory=REAL * (model.parameters + 2 * batch * length * (hidden + ffn)) + 8 * 5 * ffn**2,
        read=model.parameters,
        in_bfloat16=layers if precision == "bfloat16" else 0,
        bound=least_sure(model.bound, data.bound),
    )


def generating(model: SizedModel, data: Data, rows: float, new: float, batch: int) -> Work:
    """Answers of up to `new` tokens to the prompts of data; the bound is that none ends before."""
    prompt = longest([replace(data, lengths=tuple((0, prompt) for prompt, _ in data.lengths))], batch)
    read, cache = inference_memory(model.weights, model.vocabulary, batch), _cache(model, batch, prompt + new)
    return Work(
        tokens=rows * (prompt + max(0, new - 1)),
        flops=model.forward.generation(rows, prompt, new),
        memory=read + cache,
        heap=read + GROWN * cache,
        bound=least_sure(AT_MOST, model.bound, data.bound),
    )


def _cache(model: SizedModel, rows: float, length: float) -> float:
    """Keys and values; none are known where the family has no table."""
    return cache_memory(model.sizes, rows, length) * BYTES[model.precision] / REAL if model.sizes else 0


def pretraining(layout: Layout, model: SizedModel, settings) -> Work:
    """Pre-training, or recovery, on some tokens of a corpus."""
    data = corpus(layout, settings.corpus, "train", settings.max_length, settings.tokens)
    validation = corpus(layout, settings.corpus, "validation", settings.max_length)
    work = training(model, [data], settings, Pass(layout.study.runtime), [replace(validation, bound=data.bound)])
    may_end_early = isinstance(settings, Recover) and settings.stop_at is not None
    return replace(work, bound=least_sure(AT_MOST, work.bound)) if may_end_early else work


def fused_head(runtime: Runtime, settings: Training) -> Pass:
    """The output head of fine-tuning: trl's projects all positions, and with CUDA those with loss only; ours, on a CPU in
    float32, those with loss, but for one of its four products."""
    ours = runtime.device in ("auto", "cpu") and settings.precision == "float32"
    return Pass(runtime, FUSED_HEAD, 0 if runtime.device == "cuda" else 1 if ours else FUSED_HEAD)


def distillation(
    layout: Layout, student: SizedModel, teacher: SizedModel | None, settings: Distill, elastic: Elastic | None = None
) -> Work:
    """One student's, from a teacher that runs beside it, or (None) whose log-probabilities are cached."""
    study, teacher = layout.study, teacher and teacher._replace(precision=settings.precision)
    submodels = submodels_of(study.architecture, student, elastic) if elastic else []
    how = Pass(study.runtime, teacher=teacher, submodels=submodels)
    names = settings.names
    data, validation = (
        mixed(layout, names, split, settings.max_length, settings.weights) for split in ("train", "validation")
    )
    with_prompts = [each for each, name in zip(data, names, strict=True) if name in study.instructions]
    text = [each for each, name in zip(data, names, strict=True) if name in study.corpora]
    most = min(settings.rollout.max_prompt, settings.max_length - 1)
    asked = [instructions(layout, name, "train") for name in names if name in study.instructions]
    prompts = [_within(each, most) for each in asked]  # of rows whose own answer would be too long, too
    if settings.objective in SAMPLED_OBJECTIVES:
        work = _on_rollouts(student, prompts, text, settings, how, validation)
    elif settings.objective == "seqkd":
        work = _on_teacher_completions(student, prompts, text, settings, how, validation)
    else:
        work = training(student, data, settings, how, validation)
    if settings.evaluations and settings.answer_rows and with_prompts:
        scored = sum(min(settings.answer_rows / len(with_prompts), each.rows) for each in with_prompts)
        for _ in range(settings.evaluations + 1):
            work += generating(student, with_prompts[0], scored, settings.answer_tokens, settings.rollout.batch_size)
    return work.at(settings.precision)


def _on_rollouts(
    student: SizedModel, prompts: list[Data], text: list[Data], settings: Distill, how: Pass, validation: list[Data]
) -> Work:
    """`minillm` and `on_policy`: completions are sampled, learnt from for a few passes, and sampled again."""
    rollout, minillm, teacher = settings.rollout, settings.objective == "minillm", how.teacher
    planned = rollouts_of(settings, sum(each.rows for each in prompts))
    rows, sampled = planned.rows, planned.prompts
    samplers = [student, *([teacher] if minillm and rollout.teacher_mix else [])]
    completed = [_completed(each, settings) for each in prompts]
    work = training(student, completed, settings, how, validation, rows)
    if text and minillm:
        work += training(
            student, text, settings, how if rollout.text_teacher else replace(how, teacher=None), rows=rows
        )
    read = teacher.weights if teacher else 0
    learning = 3 * REAL * student.parameters  # weights and optimizer state; gradients are gone between two steps
    work += _sampling(samplers, completed, sampled, rollout.batch_size, learning + read)
    factor = HEAP_CHECKPOINTED if how.runtime.gradient_checkpointing else HEAP_SAMPLED
    return replace(work, heap=factor * (work.memory - read) + read)


def _on_teacher_completions(
    student: SizedModel, prompts: list[Data], text: list[Data], settings: Distill, how: Pass, validation: list[Data]
) -> Work:
    """`seqkd`: the teacher completes the prompts once, as many as the steps will see."""
    completed = [_completed(each, settings) for each in prompts]
    count = sum(each.rows for each in prompts)
    every = count + sum(each.rows for each in text)
    share = min(1.0, settings.steps * settings.batch_size / every) if settings.steps and every else 1.0
    work = training(student, [*completed, *text], settings, replace(how, taught=False), validation)
    held = student.weights + (how.teacher.weights if how.teacher else 0)
    return work + _sampling([how.teacher], completed, share * count, settings.rollout.batch_size, held)


def _within(data: Data, most: int) -> Data:
    """The rows whose prompts are not longer than this; where that would be none, they are as long as they may be."""
    kept = tuple(pair for pair in data.lengths if pair[0] <= most)
    if not kept:
        return replace(data, lengths=((most, 1),), bound=least_sure(AT_MOST, data.bound))
    return replace(data, rows=data.rows * len(kept) / max(1, len(data.lengths)), lengths=kept)


def _completed(data: Data, settings: Distill) -> Data:
    """Completions as long as they may be."""
    length, most = settings.max_length, settings.rollout.max_new_tokens or settings.max_length
    return replace(
        data,
        lengths=tuple((prompt, min(most, length - prompt)) for prompt, _ in data.lengths),
        bound=least_sure(AT_MOST, data.bound),
    )


def _sampling(models: list[SizedModel], data: list[Data], rows: float, batch: int, held: float) -> Work:
    """Completions of prompts, every model running over each; as long as they may be.

    Args:
        held: bytes of the student and its teacher, whoever samples.
    """
    whole, done = sum(each.rows for each in data), Work()
    for each in data if whole else ():
        for model in models:
            done += generating(model, each, rows * each.rows / whole, answer_tokens([each]), batch)
        caches = sum(_cache(model, batch, longest([each], batch)) for model in models)
        read = inference_memory(held, max(model.vocabulary for model in models), batch * len(models))
        done += Work(memory=read + caches, heap=read + GROWN * caches)
    return done


def submodels_of(architecture: Architecture, member: SizedModel, elastic: Elastic) -> list[tuple[float, SizedModel]]:
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
