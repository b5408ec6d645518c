"""A stack of small models in sequence (FSLM, Appendix K), fine-tuned and scored on tasks.

Each step is a model of its own, a copy of one member of the chain. It reads the question and the notes of the steps before
it, and writes a note; the last one writes the answer. What a step learns to write, the ancestor wrote for the training rows;
for the test rows the steps read each other.
"""

import json
from collections import Counter

from colpipe.config.constants import GENERATION_ROWS
from colpipe.config.parts import Positive, Strict
from colpipe.config.stages import Stack, Task
from colpipe.data.encoding import encode, encode_prompts
from colpipe.data.prompts import prompt
from colpipe.data.rows import read_rows
from colpipe.evaluation.generation import answer_all
from colpipe.evaluation.scores import percent, percent_intervals, score_rows
from colpipe.hf.models import load_frozen, load_model
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.artifacts import write_json
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record
from colpipe.training.supervised import fine_tune

MARGIN = 4  # tokens that a text may have more where its pieces are joined


class Settings(Strict):
    stack: Stack
    tasks: dict[str, Task]
    positions: Positive


def main(job: Job[Settings]) -> None:
    scores, intervals, folders = {}, {}, job.parents_of("task")
    job.state.mkdir(exist_ok=True)
    (job.staging / "answers").mkdir()
    for name in folders:
        rows, answers, notes = run_through(job, name)
        values = score_rows(answers, rows)
        scores[name] = percent(values)
        intervals[name] = percent_intervals(values)
        job.say(f"{name}: " + ", ".join(f"{metric} {value:.2f}" for metric, value in scores[name].items()))
        with open(job.staging / "answers" / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row, answer, written in zip(rows, answers, notes, strict=True):
                record = {"id": row["id"], "answers": [answer], "notes": written}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    write_json(job.staging / "scores.json", scores)
    write_json(job.staging / "intervals.json", intervals)
    job.publish()


def run_through(job: Job[Settings], name: str) -> tuple[list[dict], list[str], list[list[str]]]:
    """(test rows, their answers, the notes of the steps before) of one task."""
    settings, folder, tokenizer = job.settings, job.parents_of("task")[name], load_tokenizer(job.parents["model"])
    train, test = read_rows(folder, "train")[: settings.stack.train_rows], read_rows(folder, "test")
    teacher_notes: list[list[str]] = [[] for _ in train]  # notes of the ancestor
    model_notes: list[list[str]] = [[] for _ in test]  # and of the stack
    cut: Counter[str] = Counter()
    for number, step in enumerate(settings.stack.steps):
        if job.should_stop():
            job.stop()
        kept = job.state / f"{name}-{number}.json"
        written = read_record(kept)
        if written is None:
            queries = _prompts(settings, tokenizer, train, teacher_notes, cut, step)
            precision = settings.stack.fine_tune.precision
            teacher = load_frozen(job.parents["teacher"], precision, pick_device(job.runtime.device))
            targets = _write(job, teacher, tokenizer, queries)
            model = _fine_tune(job, f"{name} step {number + 1}: ", tokenizer, queries, targets)
            queries = _prompts(settings, tokenizer, test, model_notes, cut, step)
            texts = targets, _write(job, model, tokenizer, queries)
            written = {"texts": texts, "rows": job.manifest.get("rows", {}), "cut": cut}
            write_record(kept, written)
        job.manifest["rows"] = {**written["rows"], **job.manifest.get("rows", {})}
        cut = Counter(written["cut"])
        for notes, texts in zip((teacher_notes, model_notes), written["texts"], strict=True):
            for each, text in zip(notes, texts, strict=True):
                each.append(text)
    queries = _prompts(settings, tokenizer, train, teacher_notes, cut)
    model = _fine_tune(job, f"{name} answer: ", tokenizer, queries, [row["output"] for row in train])
    tokens = settings.tasks[name].max_new_tokens
    queries = _prompts(settings, tokenizer, test, model_notes, cut)
    job.manifest.setdefault("cut", {})[name] = dict(cut)
    if cut.total():
        job.say(
            f"{name}: to leave room for answers, {cut['questions']:,} questions and {cut['notes']:,} notes were cut"
        )
    return test, answer_all(model, tokenizer, queries, tokens, GENERATION_ROWS), model_notes


def _write(job: Job[Settings], model, tokenizer, queries: list[str]) -> list[str]:
    model = model.to(pick_device(job.runtime.device))
    return answer_all(model, tokenizer, queries, job.settings.stack.max_new_tokens, GENERATION_ROWS)


def _fine_tune(job: Job[Settings], label: str, tokenizer, queries: list[str], targets: list[str]):
    rows = [{"prompt": text, "completion": target} for text, target in zip(queries, targets, strict=True)]
    return fine_tune(job, load_model(job.parents["model"]), tokenizer, rows, job.settings.stack.fine_tune, label=label)


def _prompts(
    settings: Settings, tokenizer, rows: list[dict], notes: list[list[str]], cut: Counter[str], step: str = ""
) -> list[str]:
    """What a step reads, or without one what the last model reads: the question, and of the notes what there is room for.

    A question that leaves no room for an answer is cut too. `cut` counts both.
    """
    longest = max([settings.stack.max_new_tokens, *(task.max_new_tokens for task in settings.tasks.values())])
    length = min(settings.positions, settings.stack.fine_tune.max_length)  # rows that are longer would be left out
    found = []
    for row, written in zip(rows, notes, strict=True):
        instruction = step or row["instruction"]
        room = length - longest - MARGIN - len(encode_prompts(tokenizer, [prompt(instruction, "?")])[0])
        asked, noted = f"{row['instruction']}\n{row['input']}" if step else row["input"], "\n".join(written)
        question = _cut(tokenizer, asked, room)
        note = _cut(tokenizer, noted, room - _count(tokenizer, question))
        cut.update({"questions": question != asked, "notes": note != noted})
        found.append(prompt(instruction, f"{question}\n{note}".strip()))
    return found


def _count(tokenizer, text: str) -> int:
    return len(encode(tokenizer, [text])[0])


def _cut(tokenizer, text: str, tokens: int) -> str:
    [ids] = encode(tokenizer, [text])
    return text if len(ids) <= tokens else tokenizer.decode(ids[: max(0, tokens)])


if __name__ == "__main__":
    run_stage(
        "stack",
        __doc__,
        main,
        inputs={
            "model": "member that every step is a copy of",
            "teacher": "ancestor or bridge that writes the notes to learn from",
            "task*": "prepared instructions of each task",
        },
        settings=Settings,
    )
