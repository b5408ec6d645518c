"""What a distillation learns from: whole rows, or prompts whatever the length of the data's own answers."""

import itertools
import json

import pytest

from colpipe.config.parts import Runtime
from colpipe.data.prompts import prompt
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import write_json
from colpipe.stages import distill
from tests.conftest import make_gpt2, make_tokenizer, open_job, write_tokens

TEMPLATE = len(prompt("", "")) + 1  # tokens: this tokenizer takes every letter for itself; one instruction of a letter
LENGTHS = (1, 2, 3, 4, 5, 6)  # of the answers


@pytest.fixture
def tokenizer():
    return make_tokenizer(["a"], 257)


@pytest.fixture
def prepare(tmp_path, tokenizer):
    """`prepare_data` of a distillation on six rows and a corpus; gives the data and the job."""
    import numpy as np

    for split, lengths in (("train", LENGTHS), ("validation", (1, 6))):
        rows = [{"id": str(n), "kind": "k", "instruction": "i", "input": "", "output": "o" * n} for n in lengths]
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "text").mkdir(exist_ok=True)
        write_tokens(tmp_path / "text", split, np.zeros(5 if split == "validation" else 1000, np.uint16))

    def make(**training):
        settings = {
            "architecture": {"vocabulary": 257, "positions": 512},
            "shape": {"layers": 1, "heads": 1, "hidden": 8},
            "training": {"data": ["rows"], "batch_size": 2, "steps": 1, **training},
        }
        parents = {f"data.{name}": tmp_path / name for name in settings["training"]["data"]}
        settings = distill.Settings.model_validate(settings)
        job = open_job("distill", tmp_path / "out", tmp_path / "work", settings, Runtime(), parents, 0)
        try:
            return distill.prepare_data(job, None, tokenizer, [tokenizer.eos_token_id]), job
        finally:
            job.close()

    return make


def test_rows_are_whole(prepare, tokenizer, capfd):
    data, job = prepare(objective="reverse_kl", max_length=TEMPLATE + 4, evaluations=1)
    assert [item["input_ids"][-1].item() for item in data.items] == [tokenizer.eos_token_id] * 3
    assert len(data.validation) == 1
    assert job.manifest["rows"] == {
        "rows train": {"rows": 3, "too_long": 3, "special": 0},
        "rows validation": {"rows": 1, "too_long": 1, "special": 0},
    }
    assert "rows train: 3 of 6 rows are used, 3 were left out: longer than max_length" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("most", "message"), [(TEMPLATE + 2, "less than one batch"), (TEMPLATE, "none of 6 rows fits")]
)
def test_too_few_rows_are_refused(prepare, most, message):
    with pytest.raises(ColpipeError, match=message):
        prepare(objective="reverse_kl", max_length=most)


@pytest.mark.parametrize("objective", ["minillm", "on_policy"])
def test_prompts_are_completed_whatever_the_length_of_their_answers(prepare, objective, capfd):
    data, job = prepare(objective=objective, max_length=TEMPLATE + 2)
    assert len(data.prompts) == len(LENGTHS) and {len(each) for each in data.prompts} == {TEMPLATE}
    assert data.items is None and data.validation is None
    assert job.manifest["prompts"] == {"rows": {"prompts": 6, "too_long": 0}}
    for limits in ({"max_length": TEMPLATE}, {"rollout": {"max_prompt": TEMPLATE - 1}}):
        with pytest.raises(ColpipeError, match=f"no prompt of rows has {TEMPLATE - 1} tokens or fewer; raise rollout"):
            prepare(objective=objective, **limits)
        said = f"rows: 0 of 6 prompts are completed, 6 were left out: longer than {TEMPLATE - 1} tokens"
        assert said in capfd.readouterr().err


def test_validation_text_is_needed_only_where_it_is_looked_at(prepare):
    data, _ = prepare(objective="reverse_kl", data=["rows", "text"], max_length=TEMPLATE + 8)
    assert data.validation is None
    with pytest.raises(ColpipeError, match="the validation split's 5 tokens are less than a block"):
        prepare(objective="reverse_kl", data=["rows", "text"], max_length=TEMPLATE + 8, evaluations=1)


@pytest.fixture
def other(tmp_path):
    """A job of the second of two processes, whose member starts fitted; what it makes of the start, and its job."""
    make_gpt2(tmp_path / "teacher", 3, 2, 16, seed=1)
    settings = distill.Settings.model_validate(
        {
            "architecture": {"vocabulary": 50, "positions": 16},
            "shape": {"layers": 2, "heads": 2, "hidden": 16},
            "training": {"data": ["text"], "steps": 1},
            "fit": {"corpus": "text"},
        }
    )
    parents = {"teacher": tmp_path / "teacher"}
    job = open_job("distill", tmp_path / "out", tmp_path / "work", settings, Runtime(), parents, 0)
    job.is_main = False
    yield lambda: distill._inherit(job, parents["teacher"], job.state / "start"), job
    job.close()


def test_other_processes_wait_for_a_fit_outside_the_barrier_which_has_a_limit(other, monkeypatch):
    inherit, job = other
    done, waits = job.state / "start" / "entries.json", []

    def sleep(seconds):
        waits.append("polled")
        if len(waits) == 3:
            done.parent.mkdir(parents=True)
            write_json(done, {"layer_map": [0, 2]})

    monkeypatch.setattr(distill.time, "sleep", sleep)
    monkeypatch.setattr(distill, "wait_for_all", lambda: waits.append("barrier"))
    assert inherit() == {"layer_map": [0, 2]}
    assert waits == ["polled"] * 3 + ["barrier"]


def test_other_processes_stop_waiting_when_they_are_told_to(other, monkeypatch):
    inherit, job = other
    asked = itertools.count()
    monkeypatch.setattr(distill.time, "sleep", lambda seconds: None)
    job.should_stop = lambda: next(asked) == 2
    with pytest.raises(SystemExit, match="143"):
        inherit()
