"""The tiny study with scores, curves and manifests that are written here."""

import json

import numpy as np
import pandas as pd
import pytest

from colpipe.config.loading import load_study
from colpipe.config.stages import Task
from colpipe.pipeline.plan import Plan


@pytest.fixture
def results(study, inputs, tmp_path, monkeypatch):
    """The loaded study, and its results: what the summary and the curves are read from."""
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    loaded = load_study(study)
    folder = tmp_path / "results" / "tiny"
    for number, model in enumerate(Plan(loaded).models):
        scores = {"boolq": {"accuracy": 50.0 + number, "rouge_l": 40.0}, "stories": {"loss": 5.0 + number}}
        (folder / "scores" / model).mkdir(parents=True)
        intervals = {task: {name: (v - 1, v + 1) for name, v in metrics.items()} for task, metrics in scores.items()}
        (folder / "scores" / model / "scores.json").write_text(json.dumps(scores))
        (folder / "scores" / model / "intervals.json").write_text(json.dumps(intervals))
        if model.endswith("/0"):
            (folder / model).mkdir(parents=True)
            alpha = None if "/rand/" in model else [0.2, 0.4] if "/lower/" in model else 0.25
            (folder / model / "manifest.json").write_text(json.dumps({"alpha": alpha}))
        if model.endswith("/512"):
            (folder / model).mkdir(parents=True)
            start = 8.0 if "/rand/" in model else 6.0
            records = [
                {"split": "validation", "tokens": tokens, "loss": start - tokens / 512 * (start - 5.5)}
                for tokens in (0, 512)
            ]
            records.insert(1, {"split": "train", "tokens": 256, "loss": 5.9})
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (folder / model / "metrics.jsonl").write_text(lines)
    data = folder / "data" / "boolq"
    data.mkdir(parents=True)
    (data / "manifest.json").write_text("{}")
    for split, answers in (("train", ["yes", "yes", "no"]), ("test", ["yes", "no"])):
        rows = [{"instruction": "?", "input": "", "output": answer, "choices": ["yes", "no"]} for answer in answers]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return loaded, folder


@pytest.fixture
def compared(results):
    """The same with three tasks that generate nothing. Of 200 rows each, the bridge is right on 160 of `piqa` (two choices),
    100 of `words` and 70 of `guessed` (three choices), and each model after it on 5 less."""
    study, folder = results
    for task, right, choices in (("piqa", 160, 2), ("words", 100, 0), ("guessed", 70, 3)):
        data = folder / "data" / task
        data.mkdir()
        (data / "manifest.json").write_text("{}")
        texts = {
            "contexts": ["Q"] * max(1, choices),
            "continuations": [f" a{' b' * n}" for n in range(max(1, choices))],
        }
        row = {"instruction": "", "input": "Q", "output": "a", "likelihood": texts}
        row |= {"choices": list("abc"[:choices])} if choices else {}
        (data / "test.jsonl").write_text("".join(json.dumps({"id": str(n), **row}) + "\n" for n in range(200)))
        metrics = ("likelihood", "likelihood_normalised") if choices else ("last_word",)
        for number, model in enumerate(Plan(study).models):
            own = folder / "scores" / model
            values = np.arange(200) < right - 5 * number
            columns = {**dict.fromkeys(metrics, values.astype(float)), "answer_bits_per_byte": 1 + number / 8}
            (own / "rows").mkdir(exist_ok=True)
            frame = pd.DataFrame({"id": range(200), **columns})
            frame.to_csv(own / "rows" / f"{task}.csv", index=False, float_format="%.6g")
            for name, shift in (("scores", None), ("intervals", 1)):
                means = {m: frame[m].mean() * (1 if "bits" in m else 100) for m in columns}
                found = json.loads((own / f"{name}.json").read_text())
                found[task] = {m: v if shift is None else (v - shift, v + shift) for m, v in means.items()}
                (own / f"{name}.json").write_text(json.dumps(found))
    tasks = {name: Task(instructions=name, max_new_tokens=0, likelihood=True) for name in ("piqa", "words", "guessed")}
    rows = {**study.instructions, **dict.fromkeys(tasks, study.instructions["boolq"])}
    return study.model_copy(update={"tasks": {**study.tasks, **tasks}, "instructions": rows}), folder


@pytest.fixture
def stopping(results):
    """The same with `stop_at: 0.95`: the ancestor has 5.32 and the target is 5.6, which three of the four recoveries reach
    after 384 of 1,024 tokens and the random `lower` never does."""
    study, folder = results
    study.stages.recover = study.stages.recover.model_copy(update={"stop_at": 0.95})
    for model in Plan(study).models:
        if model.endswith("/512"):
            never = "/scratch/lower/" in model
            stopped = {"at": 0.95, "target": 5.6, "ancestor": 5.32, "reached": not never, "of": 1024}
            stopped |= {"loss": 5.8, "tokens": 1024} if never else {"loss": 5.5, "tokens": 384}
            (folder / model / "manifest.json").write_text(json.dumps({"stopped": stopped}))
            if never:
                metrics = folder / model / "metrics.jsonl"
                metrics.write_text(metrics.read_text().replace("5.5}", "5.8}"))
    return study, folder
