"""What the jobs of each rule have to do, from settings and from data as far as it is there: tokens, FLOPs, memory.

One function a rule, which its row in the rule table names; each takes the layout, the job's wildcards, its parents
(role → folder) and its settings. Nothing is loaded, and there is no torch here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Wildcards

from colpipe.architectures.flops import REAL
from colpipe.config.constants import (
    CACHE_ROWS,
    GENERATION_ROWS,
    LIKELIHOOD_ROWS,
    ORDER_CHECKED,
    ORDER_ROWS,
    PERPLEXITY_TOKENS,
    SEARCH_ALPHAS,
    SEARCH_COMPENSATIONS,
    SEARCH_TOKENS,
    VALIDATION_ITEMS,
)
from colpipe.config.layout import Layout
from colpipe.config.parts import Written
from colpipe.config.stages import Answers, Bridge, Fit, Recover, Task
from colpipe.cost.inputs import (
    ASSUMED,
    AT_MOST,
    Data,
    SizedModel,
    begins,
    corpus,
    instructions,
    least_sure,
    longest,
    mixed,
    model_in,
    of_shape,
    sample_rows,
    texts,
    tokens_of,
    whole_split,
)
from colpipe.cost.passes import (
    Work,
    distillation,
    fitting,
    fused_head,
    generating,
    measuring,
    pretraining,
    scoring,
    training,
)

CHOICES = 4  # of a row, where no row is there yet
ROLES = (
    "teacher",
    "ordered",
    "smaller",
    "larger",
    "source",
    "model",
    "student",
    "writer",
)  # of parents that are models
Parents = Mapping[str, str]


def parameters_read(layout: Layout, parents: Parents) -> int:
    """Parameters of all models that a job reads."""
    return sum(model_in(layout, folder).parameters for role, folder in parents.items() if role in ROLES)


def _names(parents: Parents, flag: str) -> list[str]:
    """Names of the parents that one flag takes."""
    return [role.removeprefix(f"{flag}.") for role in parents if role.startswith(f"{flag}.")]


def pretrain(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    return pretraining(layout, of_shape(settings["architecture"], settings["shape"]), settings["training"])


def recover(layout: Layout, wildcards: Wildcards, parents: Parents, settings: Recover) -> Work:
    work = pretraining(layout, model_in(layout, parents["model"]), settings)
    if "ancestor" in parents:
        model = model_in(layout, parents["ancestor"])._replace(precision=settings.precision)
        data = corpus(layout, settings.corpus, "validation", settings.max_length)
        chosen, rows = replace(data, rows=min(VALIDATION_ITEMS, data.rows)), PERPLEXITY_TOKENS // settings.max_length
        scored = scoring([model], [chosen], max(1, rows), everywhere=True).at(settings.precision)
        work += replace(scored, read=model.parameters)
    return work


def sft(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    sft, model = settings["training"], model_in(layout, parents["model"])
    if sft is None:  # read and written
        return Work(memory=REAL * model.parameters)
    foreign = model.vocabulary != layout.study.architecture.vocabulary
    data, validation = (
        instructions(layout, sft.instructions, split, foreign).within(sft.max_length)
        for split in ("train", "validation")
    )
    return training(model, [data], sft, fused_head(layout.study.runtime, sft), [validation])


def write_corpus(layout: Layout, wildcards: Wildcards, parents: Parents, settings: Written) -> Work:
    """As many continuations as the tokens of all splits take where none ends before."""
    model = model_in(layout, parents["writer"])._replace(precision=settings.precision)
    splits = [tokens_of(layout, wildcards.corpus, split) for split in ("train", "validation", "test")]
    documents = sum(tokens for tokens, _ in splits) / (settings.opening + settings.max_new_tokens + 1)
    bound = least_sure(AT_MOST, *(bound for _, bound in splits))
    data = Data(documents, ((settings.opening + begins(layout), settings.max_new_tokens),), bound)
    return generating(model, data, documents, settings.max_new_tokens, settings.batch_size).at(settings.precision)


def bridge_answers(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    answers = settings["answers"]
    model = model_in(layout, parents["model"])._replace(precision=answers.precision)
    data = _answered(layout, answers, foreign=True)
    return generating(model, data, data.rows, answers.max_new_tokens, answers.batch_size).at(answers.precision)


def bridge(layout: Layout, wildcards: Wildcards, parents: Parents, settings: Bridge) -> Work:
    data = _answered(layout, layout.study.stages.answers)
    held_out = min(VALIDATION_ITEMS, data.rows // 10)
    data, validation = (
        replace(data, rows=rows).within(settings.max_length) for rows in (data.rows - held_out, held_out)
    )
    return training(
        model_in(layout, parents["model"]), [data], settings, fused_head(layout.study.runtime, settings), [validation]
    )


def _answered(layout: Layout, answers: Answers, foreign: bool = False) -> Data:
    """The prompts that an ancestor answers, with completions as long as they may be."""
    data = instructions(layout, answers.instructions, "train", foreign)
    lengths = tuple((prompt, answers.max_new_tokens) for prompt, _ in data.lengths)
    if not answers.prompts:
        return Data(data.rows, lengths, least_sure(AT_MOST, data.bound))
    return Data(answers.prompts if data.bound == ASSUMED else min(answers.prompts, data.rows), lengths, AT_MOST)


def order(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    asked, model = settings["measuring"], model_in(layout, parents["model"])
    data = corpus(layout, asked.corpus, "train", asked.max_length, asked.tokens)
    tokens = max(asked.max_length, min(asked.tokens, ORDER_CHECKED))
    checked = corpus(layout, asked.corpus, "validation", asked.max_length, tokens)
    loss = scoring([model], [checked], ORDER_ROWS, everywhere=True)
    return measuring(model, data, ORDER_ROWS, asked.precision) + loss + loss  # before and after


def distill(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    """A member's, or that of a DesNet that is distilled on its own."""
    student = of_shape(settings["architecture"], settings["shape"])
    teacher = None if "signal" in parents else model_in(layout, parents["teacher"])
    work = distillation(layout, student, teacher, settings["training"], settings.get("elastic"))
    if fit := settings.get("fit"):
        work += _fitted(layout, model_in(layout, parents.get("ordered", parents["teacher"])), student, fit)
    return work


def _fitted(layout: Layout, source: SizedModel, cut: SizedModel, settings: Fit) -> Work:
    data = corpus(layout, settings.corpus, "train", settings.max_length, settings.tokens)
    return fitting(source, cut, data, ORDER_ROWS, settings.precision)


def teacher_signal(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    names, precision = _names(parents, "data"), settings["precision"]
    model = model_in(layout, parents["teacher"])._replace(precision=precision)
    rows = layout.study.runtime.micro_batch or CACHE_ROWS
    length, weights = settings["max_length"], settings.get("weights")
    data, validation = (mixed(layout, names, split, length, weights) for split in ("train", "validation"))
    chosen = [replace(each, rows=min(VALIDATION_ITEMS, each.rows)) for each in validation]
    return (scoring([model], data, rows) + scoring([model], chosen, rows)).at(precision)


def assemble(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    model = of_shape(settings["architecture"], settings["shape"])
    if "corpus" not in parents:
        return Work(memory=REAL * model.parameters)
    if fit := settings.get("fit"):
        return _fitted(layout, model_in(layout, parents["source"]), model, fit)
    block = min(layout.study.architecture.positions, SEARCH_TOKENS)
    data, rows = Data(SEARCH_TOKENS // block, ((1, block - 1),)), PERPLEXITY_TOKENS // block
    once, candidates = scoring([model], [data], rows, everywhere=True), len(SEARCH_ALPHAS) * len(SEARCH_COMPENSATIONS)
    return replace(once, tokens=candidates * once.tokens, flops=candidates * once.flops, memory=3 * once.memory)


def evaluate(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    precision = settings["precision"]
    trained = model_in(layout, parents["model"])
    model = trained._replace(precision=precision)
    positions = model.sizes["position"] if model.sizes else layout.study.architecture.positions
    longest_row = settings.get("max_length") or positions
    work, tuned = Work(memory=model.weights, precision=precision), set()
    for name in _names(parents, "corpus"):
        data = whole_split(layout, name, "test", longest_row, settings.get("tokens"))
        block = round(longest([data], 1))
        work += scoring([model], [data], max(1, PERPLEXITY_TOKENS // block), everywhere=True).at(precision)
    for task in settings["tasks"].values():
        key = (task.train or task.instructions, repr(task.fine_tune))
        if task.fine_tune and key not in tuned:
            tuned.add(key)
            data = instructions(layout, key[0], "train").within(task.fine_tune.max_length)
            tuning = training(trained, [data], task.fine_tune, fused_head(layout.study.runtime, task.fine_tune))
            weights = model.weights  # of the model beside its copy that is fine-tuned
            work += replace(tuning, memory=tuning.memory + weights, heap=tuning.heap + weights)
        work += _task(layout, model, task).at(precision)
    if continued := settings.get("continued"):
        rows, batch = 2 * len(continued), min(len(continued), GENERATION_ROWS)  # greedy and sampled
        work += generating(model, texts(layout, continued), rows, settings["continued_tokens"], batch).at(precision)
    return work


def _task(layout: Layout, model: SizedModel, task: Task) -> Work:
    """Answers to the test rows, and the likelihood of their choices."""
    data = instructions(layout, task.instructions, "test")
    work = Work()
    if task.max_new_tokens:
        work += generating(model, data, task.samples * data.rows, task.max_new_tokens, GENERATION_ROWS)
    if task.likelihood:
        path = Path(layout.data(task.instructions)) / "test.jsonl"
        choices: float = CHOICES
        if path.exists():
            rows = sample_rows(path, path.stat().st_mtime_ns)
            texts = [row["likelihood"]["continuations"] for row in rows if row.get("likelihood")]
            choices = sum(map(len, texts)) / max(1, len(rows))
        everywhere = model.family is None  # of a known family, logits of the choices alone
        work += scoring([model], [replace(data, rows=choices * data.rows)], LIKELIHOOD_ROWS, everywhere)
    return work


def stack(layout: Layout, wildcards: Wildcards, parents: Parents, settings: dict) -> Work:
    """Every step is fine-tuned on what the teacher writes, and writes for the test rows; the last one answers."""
    stack = settings["stack"]
    how = fused_head(layout.study.runtime, stack.fine_tune)
    model, work = model_in(layout, parents["model"]), Work()
    teacher = model_in(layout, parents["teacher"])._replace(precision=stack.fine_tune.precision)
    for task in settings["tasks"].values():
        train, test = (instructions(layout, task.instructions, split) for split in ("train", "test"))
        train = replace(train, rows=min(train.rows, stack.train_rows))
        for step in range(len(stack.steps) + 1):
            train_data, test_data = (_with_notes(data, step * stack.max_new_tokens) for data in (train, test))
            new = stack.max_new_tokens if step < len(stack.steps) else task.max_new_tokens
            work += training(model, [train_data.within(stack.fine_tune.max_length)], stack.fine_tune, how)
            work += generating(model, test_data, test_data.rows, new, GENERATION_ROWS)
            if step < len(stack.steps):
                work += generating(teacher, train_data, train_data.rows, new, GENERATION_ROWS)
    return work


def _with_notes(data: Data, tokens: int) -> Data:
    """Prompts with so many tokens more, at most."""
    lengths = tuple((prompt + tokens, answer) for prompt, answer in data.lengths)
    return replace(data, lengths=lengths, bound=least_sure(AT_MOST, data.bound))
