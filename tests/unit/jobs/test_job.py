import errno
import fcntl
import json
import logging
import signal
import subprocess
import sys
import time

import pytest

from colpipe.config.parts import Runtime
from colpipe.config.stages import Sft
from colpipe.errors import ColpipeError
from colpipe.jobs import artifacts
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record
from colpipe.jobs.usage import Ledger, count
from tests.conftest import CHECKOUT, open_job


@pytest.fixture
def new_job(tmp_path):
    jobs = []

    def make(**changes) -> Job:
        settings = Sft(instructions="x", **changes)
        parent = tmp_path / "parent"
        parent.mkdir(exist_ok=True)
        (parent / "rows.jsonl").write_text("{}")
        for job in jobs:
            job.close()
        jobs.append(open_job("sft", tmp_path / "out", tmp_path / "work", settings, Runtime(), {"model": parent}, 1))
        return jobs[-1]

    yield make
    jobs[-1].close()


def test_publishing_leaves_result_log_and_metrics(new_job, tmp_path):
    job = new_job()
    job.measure(step=1, split="train", loss=2.0)
    (job.staging / "model.safetensors").write_bytes(b"weights")
    job.publish(parameters=7)
    manifest = artifacts.read_manifest(tmp_path / "out")
    assert manifest["parameters"] == 7 and manifest["seed"] == 1
    assert manifest["settings"]["epochs"] == 3
    assert manifest["parents"] == {"model": artifacts.fingerprint(tmp_path / "parent")}
    for folder in ("out", "work"):
        measured, cost = map(json.loads, (tmp_path / folder / "metrics.jsonl").read_text().splitlines())
        assert measured["loss"] == 2.0
        assert cost["split"] == "job" and cost["peak_memory_mb"] > 0
    assert "done in" in (tmp_path / "work" / "log.txt").read_text()
    assert not job.state.exists()


def test_what_a_library_warns_of_is_in_the_log(new_job, tmp_path):
    job = new_job()
    logging.getLogger("colpipe.hf.generation_config").warning("left out %s", "temperature")
    assert "left out temperature\n" in (tmp_path / "work" / "log.txt").read_text()
    job.close()
    logging.getLogger("colpipe.hf.generation_config").warning("later")
    assert "later" not in (tmp_path / "work" / "log.txt").read_text()


def test_metrics_are_json(new_job):
    job = new_job()
    job.measure(step=1, split="search", loss=float("nan"), alpha=[0.5], kept=float("-inf"), other=2.0)
    assert job.metrics() == [{"step": 1, "split": "search", "loss": None, "alpha": [0.5], "kept": None, "other": 2.0}]


def test_a_file_system_without_locks_is_told_of(new_job, tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    job = new_job()
    assert (
        "the file system has no locks (No locks available): no second job may be started here"
        in capsys.readouterr().err
    )
    assert job.state.parent == tmp_path / "work"


def test_files_without_a_manifest_are_replaced_and_others_kept(new_job, tmp_path, capsys):
    out = tmp_path / "out"
    for name in ("model-00001.safetensors", "model.safetensors"):  # other files than the first time
        job = new_job()
        job.clear_files()
        (job.staging / name).write_text(name)
        job.publish_files()
        (out / "mine-q8_0.gguf").write_text("somebody's")
        job.close()
    assert {path.name for path in artifacts.content_files(out)} == {"model.safetensors", "mine-q8_0.gguf"}
    assert (out / ".set-aside-1" / "mine-q8_0.gguf").read_text() == "somebody's"
    assert f"files that were not made here were set aside: {out}/.set-aside-1/mine-q8_0.gguf" in capsys.readouterr().err
    assert not (out / ".set-aside-1" / "model-00001.safetensors").exists()


def test_all_attempts_are_added_up(new_job, tmp_path):
    job = new_job()
    count(flops=10, tokens=2)
    job.measure(step=1, split="train", loss=2.0)
    job.ledger.keep()
    (job.ledger.folder / "0-7.json").write_text("cut sh")  # cut short by a kill: not counted
    job = new_job()
    count(flops=5, tokens=1)
    other = read_record(job.ledger.folder / "0-0.json")
    write_record(job.ledger.folder / "1-0.json", {**other, "flops": 100, "tokens": 7, "peak_memory": 9e12})
    (job.staging / "model.safetensors").write_bytes(b"weights")
    job.publish()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["flops"], run["tokens"], run["attempts"]) == (115, 10, 2)  # of two processes
    assert run["peak_memory_mb"] == 9e6 and run["device"] == "cpu" and run["stage"] == "sft"
    assert run["device_seconds"] == run["seconds"] >= 0
    cost = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: cost[name] for name in ("flops", "tokens", "attempts")} == {"flops": 115, "tokens": 10, "attempts": 2}


def test_several_devices_count_several_times(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    ledger = Ledger(tmp_path)
    ledger.begun -= 10
    assert ledger.total()["device_seconds"] == pytest.approx(40, abs=4)


def test_the_state_belongs_to_settings_parents_and_seed(new_job, tmp_path):
    first = new_job().state
    assert new_job().state == first
    assert new_job(steps=3).state != first
    (tmp_path / "parent" / "more.jsonl").write_text("{}")
    assert new_job().state != first


def test_a_repeated_step_and_a_record_cut_short_count_once(new_job):
    job = new_job()
    job.measure(step=1, split="train", loss=3.0)
    with open(job.state / "metrics.jsonl", "a") as file:
        file.write('\n{"step": 2, "spl')
    job.measure(step=2, split="train", loss=1.0)
    job.measure(step=1, split="train", loss=2.0)
    assert [(record["step"], record["loss"]) for record in job.metrics()] == [(1, 2.0), (2, 1.0)]


def test_a_parent_without_files_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ColpipeError, match=r"empty: holds no files; run the stage that makes it first"):
        open_job(
            "sft", tmp_path / "o", tmp_path / "w", Sft(instructions="x"), Runtime(), {"model": tmp_path / "empty"}, 0
        )


def test_a_checkpoint_replaced_by_hand_is_said(new_job, tmp_path):
    job = new_job()
    (job.staging / "model.safetensors").write_bytes(b"weights")
    job.publish()
    job.close()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"swapped")
    open_job(
        "sft", tmp_path / "o", tmp_path / "w", Sft(instructions="x"), Runtime(), {"model": tmp_path / "out"}, 0
    ).close()
    assert "replaced by hand" in (tmp_path / "w" / "log.txt").read_text()


@pytest.mark.parametrize(("steps", "stops_after"), [(1.0, 57), (10.0, 40)])
def test_stops_before_its_time_is_over(tmp_path, monkeypatch, steps, stops_after):
    """Of one minute a twentieth is left, or two steps where these are longer."""
    now = [100.0]
    monkeypatch.setattr("colpipe.jobs.job.time.monotonic", lambda: now[0])
    settings = Sft(instructions="x")
    job = open_job("sft", tmp_path / "out", tmp_path / "work", settings, Runtime(), {}, 0, minutes=1)
    while not job.should_stop():
        now[0] += steps
    assert stops_after <= now[0] - 100 <= stops_after + steps
    with pytest.raises(SystemExit) as stopped:
        job.stop()
    assert stopped.value.code == 143
    job.close()
    assert "the 1 minutes are nearly over: state saved" in (tmp_path / "work" / "log.txt").read_text()


TALKER = """
import sys
from pathlib import Path
from colpipe.jobs.job import Job, JobSpec
from colpipe.config.parts import Runtime
from colpipe.config.stages import Sft

job = Job(JobSpec("sft", Path(sys.argv[1]), Path(sys.argv[2]), Sft(instructions="x"), Runtime(), {}, 0)).__enter__()
print("ready", flush=True)
while not job.should_stop() or sys.stdin.readline() != "enough\\n":
    for _ in range(5000):
        job.say("one line after another")
job.stop()
"""


def test_a_signal_may_come_in_the_middle_of_a_line(tmp_path):
    """Python's files cannot be entered again from a handler that interrupted a write."""
    command = [sys.executable, "-c", TALKER, str(tmp_path / "out"), str(tmp_path / "work")]
    with (
        open(tmp_path / "said", "w") as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, cwd=CHECKOUT
        ) as process,
    ):
        process.stdout.readline()
        for _ in range(200):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        process.communicate("enough\n")
    text = (tmp_path / "said").read_text()
    assert process.returncode == 143, text[-2000:]
    assert text.count("told to stop: saving at the next step") == 1
    assert "told to stop: state saved" in (tmp_path / "work" / "log.txt").read_text()
