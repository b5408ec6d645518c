"""The ancestor answers the training prompts: the pseudo data (x, ŷ) of Eq. 2.

Prompts are answered in batches of similar length. Each batch has a seed of its own and is kept when it is done, so a job
that was cut off goes on with the next one and ends with the same answers.
"""

import json
import time

from colpipe.config.parts import Prompts, Strict
from colpipe.config.stages import Answers
from colpipe.data.encoding import encode_prompts
from colpipe.data.rows import PREPARED, read_rows
from colpipe.errors import ColpipeError
from colpipe.evaluation.generation import answer, batches_by_length
from colpipe.hf.models import load_frozen, require_positions
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.jobs.command import run_stage
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job, clock
from colpipe.jobs.state import read_record, write_record

FIELDS = ("id", "kind", "instruction", "input", PREPARED)  # of a row, which the bridge learns to answer


class Settings(Strict):
    answers: Answers
    prompts: Prompts


def main(job: Job[Settings]) -> None:
    settings = job.settings.answers
    tokenizer = load_tokenizer(job.parents["model"])
    rows = read_rows(job.parents["instructions"], "train", job.settings.prompts, tokenizer)[: settings.prompts]
    model = load_frozen(job.parents["model"], settings.precision, pick_device(job.runtime.device))

    longest = max(map(len, encode_prompts(tokenizer, [row["prompt"] for row in rows])))
    what = f"the longest prompt with max_new_tokens {settings.max_new_tokens}"
    require_positions(model, longest + settings.max_new_tokens, what)
    batches = batches_by_length([row["prompt"] for row in rows], tokenizer, settings.batch_size)
    job.state.mkdir(exist_ok=True)
    answers: dict[int, str] = {}
    begun = shown = time.monotonic()
    generated = 0
    for number, batch in enumerate(batches):
        kept = job.state / f"batch-{number:06d}.json"
        texts = read_record(kept)
        if texts is None:
            if job.should_stop():
                job.stop()
            prompts = [rows[index]["prompt"] for index in batch]
            seed = job.seed * 1_000_003 + number
            texts = answer(model, tokenizer, prompts, settings.max_new_tokens, settings.temperature, seed)
            write_record(kept, texts)
            generated += 1
        answers.update(zip(batch, texts, strict=True))
        now = time.monotonic()
        if generated and (now - shown >= job.runtime.progress_seconds or number == len(batches) - 1):
            shown = now
            left = (len(batches) - number - 1) * (now - begun) / generated
            job.say(f"{len(answers):,}/{len(rows):,} prompts, {clock(left)} left")
            job.measure(step=number + 1, split="answers", prompts=len(answers), seconds=round(now - begun, 1))

    kept_rows = [
        {**{name: row[name] for name in FIELDS if name in row}, "output": answers[index]}
        for index, row in enumerate(rows)
        if answers[index].strip()
    ]
    if not kept_rows:
        raise ColpipeError(f"{job.parents['model']}: gave an empty answer to all {len(rows)} prompts")
    if empty := len(rows) - len(kept_rows):
        job.say(f"{len(kept_rows):,} of {len(rows):,} answers are kept, {empty:,} empty ones were left out")
    with open(job.staging / "train.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept_rows)
    job.publish(answers=len(kept_rows), empty=empty)


if __name__ == "__main__":
    run_stage(
        "bridge_answers",
        __doc__,
        main,
        inputs={"model": "ancestor, fine-tuned", "instructions": "prepared instructions"},
        settings=Settings,
    )
