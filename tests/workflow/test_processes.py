"""Stages in two processes, as on two devices: the curve of one, and a state that another number of them goes on from."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from colpipe.data.tokens import Blocks
from tests import forked
from tests.conftest import CHECKOUT
from tests.workflow.test_resume import command, progress

pytestmark = pytest.mark.slow
TRACKERS = ["tensorboard"] if find_spec("tensorboard") else []


def launch(
    name: str, output, devices: int, world, shard: bool = False, more: str = "", steps: int = 12
) -> subprocess.Popen:
    """The stage at work; `more` is JSON text of settings that it has beside its own."""
    path = [CHECKOUT / "tests/sharding_on_cpu"] * shard + [CHECKOUT]
    environment = {**forked.environment(*path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "colpipe.jobs.launch", name, "--devices", str(devices), "--parallel"]
    words += [*command(name, output, steps=steps, shard=shard, report_to=TRACKERS), "--log", f"{output}.log"]
    words = [word.replace('"evaluations": 3', f'"evaluations": 3{more}') for word in words]
    if name == "recover":  # shorter blocks, so that an epoch has more of them
        words = [word.replace('"max_length": 100', '"max_length": 24') for word in words]
    return subprocess.Popen(words, cwd=world, env=environment, stderr=subprocess.PIPE, text=True)


def losses(output) -> list[float]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["split"] == "train"]


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("name", ["pretrain", "sft", "distill", "recover"])
def test_two_processes_learn_as_one(name, shard, finished, tmp_path):
    for devices in (1, 2):
        process = launch(name, tmp_path / str(devices), devices, finished.results, shard)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert "[transformers]" not in said and "filled up" not in said, said
    assert len(losses(tmp_path / "1")) == 12
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)
    assert json.loads((tmp_path / "2" / "run.json").read_text())["processes"] == 2
    assert len(list(tmp_path.glob("2.work/tensorboard/*/*"))) == len(TRACKERS)  # the first process alone reports
    manifests = [json.loads((tmp_path / each / "manifest.json").read_text()) for each in "12"]
    assert set(manifests[0]["files"]) == set(manifests[1]["files"])


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("ends_at", [0, 4])
def test_two_processes_end_where_one_does(ends_at, shard, finished, tmp_path):
    """At the start, where no step is taken, and at the first evaluation after it."""
    whole = launch("recover", tmp_path / "whole", 1, finished.results)
    assert whole.wait() == 0
    start, first = (record["loss"] for record in validation(tmp_path / "whole")[:2])
    assert first < start
    target, stopped = start + 0.01 if ends_at == 0 else (start + first) / 2, []
    for devices in (1, 2):
        output = tmp_path / str(devices)
        process = launch("recover", output, devices, finished.results, shard, f', "stop_at": {target}')
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert validation(output)[-1]["step"] == ends_at and len(losses(output)) == ends_at
        stopped.append(json.loads((output / "manifest.json").read_text())["stopped"])
    one, two = stopped
    assert two.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-5) and one == two
    assert one["reached"] and one["tokens"] == ends_at * 4 * 24


def validation(output) -> list[dict]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["split"] == "validation"]


CUT = 60  # steps of what is cut off, less than an epoch: torch's launcher may take a second to hand a signal on


def begin(output, devices: int, world, shard: bool = False) -> subprocess.Popen:
    """Train until a state is there."""
    process = launch("recover", output, devices, world, shard, steps=CUT)
    while progress(output) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return process


def cut_off(output, devices: int, world, shard: bool = False) -> None:
    process = begin(output, devices, world, shard)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode and "state saved; the same command goes on from here" in said, said


@pytest.mark.parametrize(("first", "then", "shard"), [(2, 1, False), (1, 2, False), (2, 2, True)])
def test_another_number_of_processes_goes_on(first, then, shard, finished, tmp_path):
    output = tmp_path / "cut"
    cut_off(output, first, finished.results, shard)
    second = launch("recover", output, then, finished.results, shard, steps=CUT)
    said = second.communicate()[1]
    assert second.returncode == 0 and "resumes at step" in said, said
    whole = launch("recover", tmp_path / "whole", 1, finished.results, steps=CUT)
    assert whole.wait() == 0
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_a_killed_process_takes_the_others_with_it(finished, tmp_path):
    output = tmp_path / "cut"
    process = begin(output, 2, finished.results)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate()
    assert process.returncode == 1 and not (output / "manifest.json").exists()
    again = launch("recover", output, 2, finished.results, steps=CUT)
    said = again.communicate()[1]
    assert again.returncode == 0 and "resumes at step" in said
    whole = launch("recover", tmp_path / "whole", 2, finished.results, steps=CUT)
    assert whole.wait() == 0
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_rows_that_fill_up_the_last_batch_of_an_epoch_are_counted(finished, tmp_path):
    full, rest = divmod(len(Blocks(finished.results / "data/stories", "train", 100)), 4)
    assert rest % 2  # so that two processes cannot share them
    told = f"the last batch of each epoch is filled up with {-rest % 2} of its first rows"
    for devices in (1, 2):
        process = launch("pretrain", tmp_path / str(devices), devices, finished.results, steps=full + 2)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert (told in said) == (devices == 2), said
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert one[:full] == pytest.approx(two[:full], rel=1e-5) and one[full] != pytest.approx(two[full], rel=1e-5)


def test_a_sharded_state_needs_several_processes(finished, tmp_path):
    cut_off(tmp_path / "cut", 2, finished.results, shard=True)
    alone = launch("recover", tmp_path / "cut", 1, finished.results, steps=CUT)
    said = alone.communicate()[1]
    assert alone.returncode == 1 and "was saved with runtime.shard on several devices; go on so, or delete it" in said
