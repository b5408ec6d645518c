"""Stages in two processes, as on two devices: the curve of one, and a state that another number of them goes on from."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT
from tests.workflow.test_resume import command, progress

pytestmark = pytest.mark.slow


def launch(name: str, output, devices: int, world) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "colpipe.launch", name, "--devices", str(devices), *command(name, output, steps=12)]
    return subprocess.Popen(words, cwd=world, env=environment, stderr=subprocess.PIPE, text=True)


def losses(output) -> list[float]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["split"] == "train"]


@pytest.mark.parametrize("name", ["pretrain", "sft", "distill", "recover"])
def test_two_processes_learn_as_one(name, finished, tmp_path):
    for devices in (1, 2):
        process = launch(name, tmp_path / str(devices), devices, finished.results)
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert len(losses(tmp_path / "1")) == 12
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-5)
    manifests = [json.loads((tmp_path / each / "manifest.json").read_text()) for each in "12"]
    assert set(manifests[0]["files"]) == set(manifests[1]["files"])


@pytest.mark.parametrize("devices", [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(devices, finished, tmp_path):
    output = tmp_path / "cut"
    first = launch("recover", output, devices[0], finished.results)
    while progress(output) < 4:
        assert first.poll() is None, first.stderr.read()
    first.send_signal(signal.SIGTERM)
    said = first.communicate()[1]
    assert first.returncode and "state saved; the same command goes on from here" in said
    second = launch("recover", output, devices[1], finished.results)
    said = second.communicate()[1]
    assert second.returncode == 0 and "resumes at step" in said
    whole = launch("recover", tmp_path / "whole", 1, finished.results)
    assert whole.wait() == 0
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
