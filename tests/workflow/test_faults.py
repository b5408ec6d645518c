"""Randomised faults over all stages: tests/faults.py. `make faults` draws more of them."""

import os
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

pytestmark = pytest.mark.slow


def test_faults_end_in_the_same_bytes_or_a_message(finished, tmp_path):
    count, seed = os.environ.get("FAULTS", "40"), os.environ.get("FAULTS_SEED", "0")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults", str(finished.home), "--count", count, "--seed", seed]
    said = ""
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:  # as it comes: `make faults` takes minutes
            print(line, end="", flush=True)
            said += line
    assert process.returncode == 0
    assert f"{count} of {count} faults survived" in said
