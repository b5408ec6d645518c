"""The shared start in a run: the same results, and no server is left, however Snakemake ends."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.jobs.test_start import servers, until
from tests.workflow.conftest import run

pytestmark = pytest.mark.slow
FORCED = ("--forcerun", "assemble", "--", "desnets")


def test_forks_make_what_processes_of_their_own_make(finished):
    def content() -> dict[str, bytes]:
        names = ("model.safetensors", "config.json", "manifest.json")
        return {
            str(path): path.read_bytes() for name in names for path in finished.results.glob(f"desnets/**/0/{name}")
        }

    before = content()
    assert len(before) >= 9 and "there is no shared start" not in finished.first.stdout + finished.first.stderr
    until(lambda: not servers(finished.home))
    run(finished.home, "--no-hooks", *FORCED)
    assert content() == before


def test_the_server_ends_with_a_killed_snakemake(finished):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "my-study.yaml", *FORCED]
    process = subprocess.Popen(command, cwd=finished.home, stderr=subprocess.DEVNULL)
    until(lambda: servers(finished.home) or process.poll() is not None)
    assert len(servers(finished.home)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not servers(finished.home), 600)  # it loads all libraries before it looks
    until(lambda: not at_work(finished.home), 600)  # jobs outlive a Snakemake that is killed
    run(finished.home, "--unlock")
    run(finished.home, *FORCED)
    until(lambda: not servers(finished.home))


def at_work(home: Path) -> list[Path]:
    """Processes in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == home:
                found.append(process)
    return found
