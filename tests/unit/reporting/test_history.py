"""What logs say of attempts, in the words of the jobs that write them."""

import json

import pytest

from colpipe.config.parts import Runtime
from colpipe.config.stages import Sft
from colpipe.errors import ColpipeError
from colpipe.jobs.command import run_stage
from colpipe.reporting.history import BROKEN, read_events
from tests.conftest import open_job


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Run the body of a stage as a job `sft/a` of a study, its errors told as `run_stage` tells them."""
    parent = tmp_path / "results/s/data"
    parent.mkdir(parents=True)
    (parent / "rows.jsonl").write_text("{}")

    def run(body, steps: int = 1):
        where = ["--output", tmp_path / "results/s/sft/a", "--work", tmp_path / "results/s/work/sft/a"]
        settings = json.dumps({"instructions": "x", "steps": steps})
        monkeypatch.setattr("sys.argv", [*map(str, ["sft", "--model", parent, *where, "--settings", settings])])
        try:
            run_stage("sft", "", body, inputs={"model": ""}, settings=Sft)
        except SystemExit as ended:
            return ended.code
        return 0

    return run


def finish(job):
    (job.staging / "model.safetensors").write_text("weights")
    job.publish()


def refuse(job):
    job.measure(step=1, split="train", loss=1.0)
    raise ColpipeError("loss is nan; lower learning_rate")


def break_down(job):
    raise KeyError("no such\nthing")


def told_to_stop(job):
    job.measure(step=1, split="train", loss=1.0)
    job._told_to_stop = True
    job.stop()


def test_a_study_without_failures_has_no_events(attempt, tmp_path):
    assert attempt(finish) == 0
    assert read_events(tmp_path / "results/s") == []
    assert read_events(tmp_path / "results/other") == []


def test_attempts_are_told_in_their_order(attempt, tmp_path):
    assert [attempt(refuse), attempt(break_down), attempt(told_to_stop), attempt(finish, steps=2)] == [1, 1, 143, 0]
    attempt(refuse, steps=3)
    found = read_events(tmp_path / "results/s")
    assert [(event.kind, event.ended) for event in found] == [
        ("failed", True),
        ("failed", True),
        ("stopped", True),
        ("state not used", True),
        ("failed", False),
    ]
    assert found[0].text == "loss is nan; lower learning_rate" and found[0].job == "sft/a"
    assert found[1].text == "KeyError: 'no such\\nthing'"
    assert found[3].text.startswith("set aside state-")
    assert {event.kind for event in found} - set(BROKEN) == {"state not used"}


def test_a_state_that_every_attempt_finds_is_told_once(attempt, tmp_path):
    attempt(refuse)
    attempt(break_down, steps=2)
    attempt(break_down, steps=2)
    kinds = [event.kind for event in read_events(tmp_path / "results/s")]
    assert kinds == ["failed", "state not used", "failed", "failed"]


def test_resumed_jobs_are_told(tmp_path):
    job = open_job("sft", tmp_path / "out", tmp_path / "s/work/sft/a", Sft(instructions="x"), Runtime(), {}, 0)
    job.event("resumed", "resumes at step 12")
    job.event("resumed", "resumes after 1,200 documents")
    job.close()
    assert [event.kind for event in read_events(tmp_path / "s")] == ["resumed"] * 2
