"""The tiny study with scores, curves and manifests that are written here."""

import json

import pytest

from colpipe.config.loading import load_study
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
