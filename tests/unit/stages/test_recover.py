"""The stage `recover` where a share of the ancestor's quality ends it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.config.stages import Recover
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, write_json
from colpipe.jobs.job import Job, JobSpec
from colpipe.stages import recover
from colpipe.training import stop_at
from tests.conftest import Killed, kill, make_model, make_tokenizer, write_tokens

SETTINGS = {"corpus": "c", "steps": 8, "batch_size": 2, "max_length": 32, "evaluations": 8, "learning_rate": 3e-3}
UNIFORM = math.log(300)


@pytest.fixture
def parents(tmp_path) -> dict[str, Path]:
    """A DesNet, a corpus of 8 blocks, and an ancestor that holds all 300 tokens for equally probable."""
    tokenizer = make_tokenizer(["the old stone school by the river"], 300)
    architecture = Architecture(family="llama", vocabulary=300, positions=64, tied=False)
    for name, layers in (("ancestor", 2), ("model", 1)):
        shape = Shape(layers=layers, heads=2, kv_heads=1, hidden=16, ffn=32)
        model = make_model(tmp_path / name, architecture, shape, seed=layers)
        tokenizer.save_pretrained(tmp_path / name)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ancestor")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(tmp_path / "ancestor")
    (tmp_path / "corpus").mkdir()
    counts = {split: {"tokens": 256, "bytes": 1024} for split in ("train", "validation")}
    for split in counts:
        write_tokens(tmp_path / "corpus", split, np.arange(256, dtype=np.uint16))
    write_json(tmp_path / "corpus" / MANIFEST, {"counts": counts, "files": {}})
    return {name: tmp_path / name for name in ("model", "corpus", "ancestor")}


def run(output: Path, parents: dict[str, Path], kill_at: int | None = None, **changes) -> dict:
    """The manifest, with `losses`: step → validation loss."""
    settings, runtime = Recover.model_validate(SETTINGS | changes), Runtime(device="cpu", save_minutes=0)
    spec = JobSpec("recover", output, output.with_name(f"{output.name}.work"), settings, runtime, parents, 0)
    with Job(spec) as job:
        kill(job, after=kill_at)
        recover.main(job)
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["loss"] for record in records if record["split"] == "validation"}
    return {**json.loads((output / "manifest.json").read_text()), "losses": losses}


def test_a_share_of_the_ancestors_quality_ends_it(parents, tmp_path, capfd):
    """The uniform guess has ln 300: a share of 0.99 asks for 1 / 0.99 of that."""
    without = {name: folder for name, folder in parents.items() if name != "ancestor"}
    full, cut = run(tmp_path / "full", without), run(tmp_path / "cut", parents, stop_at=0.99)
    target = UNIFORM / 0.99
    first = min(step for step, loss in full["losses"].items() if loss <= target)
    assert 0 < first < 8 and full["losses"][first - 1] > target  # or this would show nothing
    assert cut["losses"] == {step: loss for step, loss in full["losses"].items() if step <= first}
    assert cut["stopped"] == {
        "at": 0.99,
        "target": pytest.approx(target, rel=1e-6),
        "ancestor": pytest.approx(UNIFORM, rel=1e-6),
        "reached": True,
        "loss": full["losses"][first],
        "tokens": first * 2 * 32,
        "of": 8 * 2 * 32,
    }
    said = capfd.readouterr().err
    assert f"the ancestor's validation loss {UNIFORM:.4f} ({parents['ancestor']})" in said
    assert f"stop_at {target:.4f} = the ancestor's {UNIFORM:.4f} / 0.99: reached with" in said
    assert "stopped" not in full and set(full["parents"]) == {"model", "corpus"}
    assert "stop_at" not in full["settings"]


def test_a_killed_job_does_not_measure_the_ancestor_again(parents, tmp_path, monkeypatch):
    loaded, load = [], stop_at.load_frozen
    monkeypatch.setattr(stop_at, "load_frozen", lambda *given: loaded.append(given) or load(*given))
    whole = run(tmp_path / "whole", parents, stop_at=0.99)
    with pytest.raises(Killed):
        run(tmp_path / "cut", parents, kill_at=1, stop_at=0.99)
    assert run(tmp_path / "cut", parents, stop_at=0.99) == whole
    assert [(folder.name, precision) for folder, precision, _ in loaded] == [("ancestor", "float32")] * 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_the_ancestor_is_looked_at_in_the_precision_of_the_training(parents, tmp_path, monkeypatch):
    loaded, load = [], stop_at.load_frozen
    monkeypatch.setattr(stop_at, "load_frozen", lambda *given: loaded.append(load(*given)) or loaded[-1])
    found = run(tmp_path / "out", parents, stop_at=0.99, precision="bfloat16", evaluations=1)
    assert [model.dtype for model in loaded] == [torch.bfloat16]
    assert found["stopped"]["ancestor"] == pytest.approx(UNIFORM, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"stop_at": 0.99}, False, "settings: stop_at 0.99 is a share of the ancestor's quality: it needs --ancestor"),
        ({"stop_at": 3.5}, True, "settings: stop_at 3.5 looks at no --ancestor: leave it out, or give a share of up to 1"),
        ({}, True, "settings: stop_at null looks at no --ancestor: leave it out"),
    ],
)  # fmt: skip
def test_an_ancestor_goes_with_a_share(parents, tmp_path, changes, given, message):
    parents = {name: folder for name, folder in parents.items() if given or name != "ancestor"}
    with pytest.raises(ColpipeError, match=message):
        run(tmp_path / "out", parents, **changes)


def test_an_ancestor_of_another_tokenizer_is_refused(parents, tmp_path):
    stranger = Path(shutil.copytree(parents["ancestor"], tmp_path / "stranger"))
    make_tokenizer(["great music built in a small city"], 300).save_pretrained(stranger)
    with pytest.raises(
        ColpipeError, match=r"stranger and .*model have different tokenizers: id 257 .* says nothing then"
    ):
        run(tmp_path / "out", {**parents, "ancestor": stranger}, stop_at=0.99)
