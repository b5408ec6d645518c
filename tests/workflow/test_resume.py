"""kill -9 in the middle, the same command again: the same weights, to the last bit."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests import forked
from tests.conftest import CHECKOUT, STUDY, process_of, snakemake, stage
from tests.workflow.conftest import run

pytestmark = pytest.mark.slow

RUNTIME = {"save_minutes": 0, "progress_seconds": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, inputs, finished):
    """Inputs of every stage: results of the tiny study."""
    return finished.results


def training(**more) -> dict:
    return {"steps": 60, "batch_size": 4, "max_length": 100, "learning_rate": 1e-3, **more}


def shape(layers, heads, hidden) -> dict:
    return {
        "architecture": {"family": "gpt2", "vocabulary": 512, "positions": 128},
        "shape": {"layers": layers, "heads": heads, "hidden": hidden},
    }


STAGES = {
    "pretrain": (
        ["--corpus", "data/stories", "--tokenizer", "tokenizer"],
        {**shape(2, 2, 16), "training": training(corpus="stories")},
    ),
    "sft": (
        ["--model", "../../inputs/llama", "--instructions", "data/describe"],
        {"training": training(instructions="describe", max_length=250), "prompts": "paper"},
    ),
    "bridge_answers": (
        ["--model", "sft/llama", "--instructions", "data/describe"],
        {"answers": {"instructions": "describe", "max_new_tokens": 60, "batch_size": 1}, "prompts": "paper"},
    ),
    "distill": (
        [
            "--teacher",
            "chain/llama/large",
            "--tokenizer",
            "tokenizer",
            "--data",
            "describe=data/describe",
            "stories=data/stories",
        ],
        {**shape(3, 2, 16), "training": training(data=["describe", "stories"], evaluations=3)},
    ),
    "recover": (
        ["--model", "desnets/llama/upper/nested/0", "--corpus", "data/stories"],
        training(corpus="stories", evaluations=3, epochs=9),
    ),
}


def command(name: str, output, steps: int | None = None, **runtime) -> list[str]:
    parents, settings = copy.deepcopy(STAGES[name])
    if steps:
        settings.get("training", settings)["steps"] = steps
    where = ["--output", str(output), "--work", f"{output}.work", "--seed", "3"]
    return [*parents, "--settings", json.dumps(settings), "--runtime", json.dumps(RUNTIME | runtime), *where]


def content(folder) -> dict[str, bytes]:
    names = ("model.safetensors", "train.jsonl", "manifest.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def begin(name: str, *arguments: str, cwd) -> subprocess.Popen:
    """A stage at work."""
    return subprocess.Popen(**process_of(name, *arguments), cwd=cwd, stderr=subprocess.PIPE, text=True)


def progress(output) -> int:
    """Steps or batches that the job's state holds as complete."""
    work = output.with_name(output.name + ".work")
    complete = [int(path.parent.name.rpartition("-")[2]) for path in work.glob("state-*/trainer/checkpoint-*/complete")]
    return max([*complete, len(list(work.glob("state-*/batch-*.json")))])


@pytest.mark.parametrize("name", STAGES)
def test_killed_and_resumed_equals_uninterrupted(world, tmp_path, name):
    stage(name, *command(name, tmp_path / "whole"), cwd=world)
    output = tmp_path / "cut"
    for number, after in enumerate((5, 12)):  # two kills, in two different runs
        process = begin(name, *command(name, output), cwd=world)
        while progress(output) < after:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()  # until the fork that did the work is gone too
        assert not (output / "manifest.json").exists(), f"kill {number} came too late"
    resumed = stage(name, *command(name, output), cwd=world)
    if name != "bridge_answers":
        assert "resumes at step" in resumed.stderr
    assert content(output) == content(tmp_path / "whole")
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in metrics if record["split"] in ("train", "answers")]
    assert len(steps) == len(set(steps))
    log = (tmp_path / "cut.work" / "log.txt").read_text()
    assert "done in" in log and len(log.splitlines()) > 10  # one log over all three runs
    assert not list((tmp_path / "cut.work").glob("state-*"))


def test_sigterm_saves_and_exits_143(world, tmp_path):
    output = tmp_path / "cut"
    many = 240  # steps: the signal goes through several processes
    quiet = command("recover", output, many, save_minutes=99)
    process = begin("recover", *quiet, cwd=world)
    for line in process.stderr:
        if f"step 3/{many}" in line:
            process.send_signal(signal.SIGTERM)
            break
    text = process.stderr.read()
    assert process.wait() == 143
    assert "told to stop: saving at the next step" in text and "state saved" in text
    assert progress(output) >= 3
    stage("recover", *command("recover", output, many), cwd=world)
    stage("recover", *command("recover", tmp_path / "whole", many), cwd=world)
    assert content(output) == content(tmp_path / "whole")


def test_a_state_of_other_settings_is_set_aside(world, tmp_path):
    output = tmp_path / "cut"
    process = begin("recover", *command("recover", output), cwd=world)
    while progress(output) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    other = [word.replace('"learning_rate": 0.001', '"learning_rate": 0.002') for word in command("recover", output)]
    result = stage("recover", *other, cwd=world)
    assert "set aside" in result.stderr and "resumes at" not in result.stderr


def test_two_jobs_on_one_work_folder(world, tmp_path):
    # A process of its own: of a fork, SIGSTOP would stop what waits for it alone.
    process = subprocess.Popen(
        [sys.executable, "-m", "colpipe.stages.recover", *command("recover", tmp_path / "one")],
        cwd=world,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while progress(tmp_path / "one") < 1:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)  # alive, and not about to finish
    second = stage("recover", *command("recover", tmp_path / "one"), cwd=world, check=False)
    process.kill()
    process.wait()
    assert second.returncode == 1
    assert "another process is working there" in second.stderr
    assert "Traceback" not in second.stderr


def test_snakemake_killed_and_started_again(finished):
    """Snakemake wipes declared outputs before it starts a job; the in-step state is not among them, and is used."""
    study = copy.deepcopy(STUDY)
    study["stages"]["recover"]["epochs"] = 40
    study["runtime"] = {"save_minutes": 0}
    (finished.home / "long.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    target = "results/tiny/desnets/llama/upper/nested/512/manifest.json"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target, "--configfile", "long.yaml"]
    more = {"stderr": subprocess.DEVNULL, "start_new_session": True, "env": forked.environment()}
    process = subprocess.Popen(command, cwd=finished.home, **more)
    work = finished.results / "work/desnets/llama/upper/nested/512"
    while len(list(work.glob("state-*/trainer/checkpoint-*/complete"))) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (finished.home / target).exists()
    run(finished.home, "--unlock", study="long.yaml")
    resumed = snakemake(finished.home, target, "--configfile", "long.yaml", checkout=finished.home)
    assert "resumes at step" in resumed.stderr
    weights = (finished.home / target).with_name("model.safetensors")
    cut = weights.read_bytes()
    snakemake(finished.home, target, "--force", "--configfile", "long.yaml", checkout=finished.home)
    assert weights.read_bytes() == cut
