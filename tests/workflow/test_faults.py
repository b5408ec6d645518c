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
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stderr
    assert f"{count} of {count} faults survived" in result.stdout
