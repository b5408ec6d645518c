"""Forks that stand for processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import forked

PROBE = """
import json, os, sys

found = {"argv": sys.argv[1:], "cwd": os.getcwd(), "path": sys.path, "environment": dict(os.environ), "main": __name__}
found |= {"colpipe": [name for name in sys.modules if name.startswith("colpipe")], "read": sys.stdin.read()}
print(json.dumps(found))
print("said", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def home(tmp_path):
    """A folder with modules that tell of themselves and wait, and one that every Python imports which looks there."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "waits.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(600)\n")
    (tmp_path / "on_path").mkdir()
    (tmp_path / "on_path" / "sitecustomize.py").write_text("import os\nos.environ['CUSTOMIZED'] = 'yes'\n")
    return tmp_path


@pytest.mark.parametrize("options", [[], ["-P"]])
def test_a_fork_is_what_a_process_of_its_own_is(home, options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), str(home / "on_path")]), "SOME": "thing"}
    told = []
    for python in ([sys.executable], forked.python("snakemake")):
        command = [*python, *options, "-m", "probe", "a b", ""]
        ended = subprocess.run(command, cwd=home, env=environment, input="typed", capture_output=True, text=True)
        assert ended.returncode == 7 and ended.stderr == "said\n"
        told.append(json.loads(ended.stdout))
    own, forks = (found.pop("path") for found in told)
    assert forks == [*own, ".snakemake/pip-deployments"]  # which Snakemake appends as it is imported
    assert told[0] == told[1]
    assert told[1]["environment"]["CUSTOMIZED"] == "yes" and told[1]["read"] == "typed" and not told[1]["colpipe"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_by_a_signal(home, number):
    command = [*forked.python("snakemake"), "-m", "waits"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        assert process.stdout.read() == ""  # until the fork, too, has ended
        assert process.wait() == -number


def test_a_server_ends_with_its_process():
    program = "from tests import forked; import subprocess; print(forked.python('snakemake')[-1]); "
    program += "subprocess.run([*forked.python('snakemake'), '-m', 'this'], check=True, capture_output=True)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name = ended.stdout.strip()
    end = time.monotonic() + 60
    while f" {name}\n" in open("/proc/net/unix").read():
        assert time.monotonic() < end
        time.sleep(0.01)
