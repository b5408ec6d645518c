"""Score one model on everything: held-out perplexity, then for each task fine-tune, generate, Rouge-L and accuracy.

All tasks of a model are one job, and the fine-tuned weights are not kept. A finished task is not repeated after a kill.
"""

import json

from colpipe.checkpoint import write_json
from colpipe.data.tokens import read_rows
from colpipe.evaluation.generation import answer_all
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.evaluation.scores import score
from colpipe.job import Job, run_stage
from colpipe.settings import Strict
from colpipe.stage_settings import Task
from colpipe.training.device import pick_device
from colpipe.training.models import load_model, load_tokenizer
from colpipe.training.supervised import fine_tune

GENERATION_BATCH = 64


class Settings(Strict):
    tasks: dict[str, Task] = {}


def main(job: Job) -> None:
    folder = job.parents["model"]
    tokenizer = load_tokenizer(folder)
    device = pick_device(job.runtime.device)
    scores: dict[str, dict[str, float]] = {}
    job.state.mkdir(exist_ok=True)
    for name, corpus in job.parents_of("corpus").items():
        scores[name] = held_out_loss(load_model(folder).to(device), corpus)
        job.say(f"{name}: held-out loss {scores[name]['loss']:.4f}")
    for name, instructions in job.parents_of("task").items():
        if job.stop_requested:
            job.stop()
        task = job.settings.tasks[name]
        done = job.state / f"scores-{name}.json"
        if not done.exists():
            train, test = read_rows(instructions, "train"), read_rows(instructions, "test")
            model = fine_tune(job, load_model(folder), tokenizer, train, task.fine_tune, label=f"{name}: ")
            prompts = [row["prompt"] for row in test]
            answers = answer_all(model, tokenizer, prompts, task.max_new_tokens, GENERATION_BATCH)
            write_json(done, score(answers, test))
        scores[name] = json.loads(done.read_text())
        job.say(f"{name}: " + ", ".join(f"{metric} {value:.2f}" for metric, value in scores[name].items()))
    write_json(job.staging / "scores.json", scores)
    job.publish()


if __name__ == "__main__":
    run_stage(
        "evaluate",
        __doc__,
        main,
        inputs={
            "model": "model to score",
            "corpus*": "prepared corpora for held-out perplexity",
            "task*": "prepared instructions of each task",
        },
        settings=Settings,
    )
