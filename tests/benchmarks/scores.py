"""Scores of a model of the demo's size: likelihood beside `lm_eval.simple_evaluate`, fine-tuning beside trl's loss, held-out
loss beside full logits.

A GPT-2 of random weights (5 layers × 96, vocabulary 4,096), float32, the same rows, batches and steps; in one process, in
turns, on one thread, as the demo has two jobs on two cores. Processor seconds, the fewest count. Log-likelihoods, weights
and losses have to be equal to the last bit.

    python -m tests.benchmarks.scores            a minute alone on one core
    python -m tests.benchmarks.scores --quick    a few rows, once; tells nothing

Prints a line per measure and, as the last line, one JSON object. Missing a goal is no failure.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import GPT2Config, GPT2LMHeadModel

from colpipe.config.constants import LIKELIHOOD_ROWS
from colpipe.config.parts import Runtime
from colpipe.config.stages import Training
from colpipe.evaluation import perplexity
from colpipe.evaluation.likelihood import choice_scores
from colpipe.hf.counting import count_calls
from colpipe.hf.logits import transform_of
from colpipe.jobs.artifacts import MANIFEST, write_json
from colpipe.jobs.job import Job, JobSpec
from colpipe.training import supervised
from tests.benchmarks.measuring import Line, report
from tests.conftest import WORDS, make_tokenizer, write_tokens

VOCABULARY, POSITIONS = 4096, 160
FASTER = {"choices by likelihood": 1.5, "fine-tuning": 1.5, "held-out loss": 1.3}  # goals: seconds of the other / ours


def world():
    """A model, its tokenizer, and a chance to draw from."""
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = sorted({"".join(chance.choices(letters, k=chance.randint(3, 8))) for _ in range(6000)})
    tokenizer = make_tokenizer([" ".join(made), " ".join(WORDS)], VOCABULARY)
    torch.manual_seed(0)
    sizes = dict(n_layer=5, n_head=6, n_embd=96, n_positions=POSITIONS, vocab_size=VOCABULARY)
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    return count_calls(model), tokenizer, chance


def rows_of(count: int, chance: random.Random) -> list[dict]:
    """Questions of 10 to 40 words with four choices of one to three, as the tests' readers make them."""
    rows = []
    for number in range(count):
        choices = [" ".join(chance.sample(WORDS, 1 + k % 3)) + f" {k}" for k in range(4)]
        question = " ".join(chance.choices(WORDS, k=chance.randint(10, 40)))
        scored = {"contexts": [f"{question}\nAnswer:"] * 4, "continuations": [f" {choice}" for choice in choices]}
        right = choices[number % 4]
        rows.append({"id": str(number), "choices": choices, "output": right, "likelihood": scored})
        rows[-1] |= {"prompt": question, "completion": right}
    return rows


def by_lm_eval(model, tokenizer, rows: list[dict]) -> list[float]:
    """acc and acc_norm of a task with these rows. It does not look for lm-eval's own tasks, which takes seconds."""
    docs = [
        {
            "text": row["likelihood"]["contexts"][0],
            "choices": row["choices"],
            "right": row["choices"].index(row["output"]),
        }
        for row in rows
    ]
    task = {
        "task": "rows",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=LIKELIHOOD_ROWS, max_length=POSITIONS)
    no_others = TaskManager(include_defaults=False)
    found = simple_evaluate(scorer, tasks=[task], task_manager=no_others, bootstrap_iters=0, verbosity="ERROR")
    scores = found["results"]["rows"]
    return [scores["acc,none"], scores["acc_norm,none"]]


def by_us(model, tokenizer, rows: list[dict]) -> list[float]:
    found = choice_scores(model, tokenizer, rows)
    return [sum(found[name]) / len(rows) for name in ("likelihood", "likelihood_normalised")]


def tuned(model, tokenizer, rows: list[dict], steps: int, transform: Callable) -> torch.Tensor:
    """All weights (P,) after a fine-tuning."""
    copy = count_calls(GPT2LMHeadModel(model.config))
    copy.load_state_dict(model.state_dict())
    settings = Training(steps=steps, batch_size=16, max_length=POSITIONS, learning_rate=3e-3)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(supervised, "transform_of", transform):
        spec = JobSpec("evaluate", Path(folder) / "out", Path(folder) / "work", settings, Runtime(device="cpu"), {}, 0)
        with Job(spec) as job:
            supervised.fine_tune(job, copy, tokenizer, rows, settings)
    return torch.cat([parameter.detach().flatten() for parameter in copy.parameters()])


def held_out(model, corpus: Path, transform: Callable) -> torch.Tensor:
    """Loss of each block (B,)."""
    with mock.patch.object(perplexity, "transform_of", transform):
        return torch.from_numpy(perplexity.block_losses(model, corpus))


def unknown(model) -> None:
    """`transform_of` a model of which it is not known: its own forward, or trl's loss, makes the logits then."""


def corpus_of(folder: Path, tokens: int) -> Path:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, tokens, dtype=np.uint16)
    write_tokens(folder, "test", ids)
    write_json(folder / MANIFEST, {"counts": {"test": {"tokens": tokens, "bytes": 4 * tokens}}})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rows, once")
    quick = parser.parse_args().quick
    count, steps, tokens = (12, 1, 1600) if quick else (200, 12, 40_000)
    torch.set_num_threads(1)
    model, tokenizer, chance = world()
    rows = rows_of(count, chance)
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder), tokens)
        contenders = {
            "choices by likelihood": {
                "ours": lambda: torch.tensor(by_us(model, tokenizer, rows)),
                "simple_evaluate": lambda: torch.tensor(by_lm_eval(model, tokenizer, rows)),
            },
            "fine-tuning": {
                "ours": lambda: tuned(model, tokenizer, rows * 4, steps, transform_of),
                "trl's loss": lambda: tuned(model, tokenizer, rows * 4, steps, unknown),
            },
            "held-out loss": {
                "ours": lambda: held_out(model, corpus, transform_of),
                "full logits": lambda: held_out(model, corpus, unknown),
            },
        }
        measured = [compare(name, each, 1 if quick else 3) for name, each in contenders.items()]
    report([line for lines, _ in measured for line in lines], rows=count, seconds=[seconds for _, seconds in measured])


def compare(name: str, contenders: dict, times: int) -> tuple[list[Line], dict]:
    """Fewest processor seconds of each contender, beside each other, and whether both give the same."""
    seconds, found = dict.fromkeys(contenders, float("inf")), {}
    for _ in range(times):
        for contender, work in contenders.items():
            begun = time.process_time()
            found[contender] = work()
            seconds[contender] = min(seconds[contender], time.process_time() - begun)
    (_, other), (ours, theirs), results = contenders, seconds.values(), found.values()
    different = 0 if torch.equal(*results) else 1
    lines = [
        Line(name, "s", ours, other, theirs, 1 / FASTER[name]),
        Line(f"{name}: other results", "", different, limit=0),
    ]
    return lines, seconds


if __name__ == "__main__":
    main()
