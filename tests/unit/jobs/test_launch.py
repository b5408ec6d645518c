"""Devices of a job: what it may use, that no two jobs have the same one, and how many processes that makes."""

import json
import os
import subprocess
import sys
import time

import pytest

from colpipe.jobs import launch
from tests.conftest import CHECKOUT


@pytest.fixture
def started(monkeypatch):
    """Runs the launcher with arguments; gives the command that it becomes, without the Python."""

    def run(*arguments: str) -> list[str]:
        found = []
        monkeypatch.setattr(sys, "argv", ["launch", *arguments])
        monkeypatch.setattr(os, "execv", lambda path, command: found.extend(command[1:]))
        launch.main()
        return found

    for variable in launch.VISIBLE.values():
        monkeypatch.delenv(variable, raising=False)
    return run


def runtime(device: str) -> list[str]:
    return ["--runtime", json.dumps({"device": device})]


def test_one_process_on_the_cpu(started):
    assert started("sft", "--devices", "1", "--seed", "3", *runtime("auto")) == [
        *("-m", "colpipe.stages.sft", "--seed", "3", "--runtime", '{"device": "auto"}')
    ]


def test_one_process_a_device(started, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    command = started("distill", "--devices", "2", "--parallel", "--granted", *runtime("cuda"))
    # Behind `--`, the launcher takes no flag of the stage for one of its own.
    assert command[:7] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "--", "colpipe.stages.distill")
    ]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6" and os.environ["OMP_NUM_THREADS"] == "3"


def test_stages_that_do_not_train_use_one_and_say_so(started, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    assert started("evaluate", "--devices", "2", *runtime("npu"))[:2] == ["-m", "colpipe.stages.evaluate"]
    assert "evaluate: uses 1 of 2 devices" in capsys.readouterr().err
    assert os.environ["ASCEND_RT_VISIBLE_DEVICES"] == "0"


def test_fewer_than_granted_is_an_error(started, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(SystemExit, match=r"asked for 2 cuda devices, this job may use 1: \['4'\]"):
        started("distill", "--devices", "2", "--parallel", "--granted", *runtime("cuda"))


def test_slurm_says_which_npus(monkeypatch, tmp_path):
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "scontrol").write_text(
        "#!/bin/sh\necho '   Nodes=n CPU_IDs=0 Mem=9 GRES=npu:ascend910b:3(IDX:0-1,5)'\n"
    )
    (tmp_path / "scontrol").chmod(0o755)
    assert launch.granted("npu") == ["0", "1", "5"]


def test_several_nodes_meet_at_the_first(started, monkeypatch, tmp_path):
    """srun starts the same command on each; there, torch's launcher is told where to meet."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho a-3\necho a-4\n")
    (tmp_path / "scontrol").chmod(0o755)
    for name, value in {"JOB_NUM_NODES": "2", "JOB_NODELIST": "a-[3-4]", "JOB_ID": "20007"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv(launch.RENDEZVOUS, "unset")
    monkeypatch.delenv(launch.RENDEZVOUS)

    def become(file, command):
        raise SystemExit(" ".join(command))

    monkeypatch.setattr(os, "execvp", become)
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    words = ("distill", "--devices", "4", "--parallel", "--granted", *runtime("cuda"))
    with pytest.raises(
        SystemExit, match=r"^srun --overlap --nodes=2 .*-m colpipe.jobs.launch distill --devices 4 --parallel --granted"
    ):
        started(*words)
    assert os.environ[launch.RENDEZVOUS] == "a-3:20007"
    meeting = [
        "--nnodes=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=a-3:20007",
        "--rdzv_id=20007",
        "--nproc_per_node=2",
    ]
    assert started(*words)[2:7] == meeting
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")  # the others are taken
    assert started("evaluate", "--devices", "1", *words[4:])[:2] == [
        "-m",
        "colpipe.stages.evaluate",
    ]  # trains nothing: one node


HOLDER = """
import sys, tempfile
from colpipe.jobs import launch
tempfile.tempdir = sys.argv[1]
print(",".join(launch.take("cuda", ["0", "1", "2"], 2)), flush=True)
sys.stdin.readline()
"""


def test_no_two_jobs_have_the_same_device(tmp_path, monkeypatch):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": CHECKOUT}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "0,1\n"
        monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
        assert launch.take("cuda", ["0", "1", "2"], 1) == ["2"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, **pipes) as second:
            assert second.stderr.readline() == "waits for 2 of cuda 0, 1, 2: 0 free\n"
            time.sleep(0.1)
            assert second.poll() is None
            first.communicate("\n")
            assert second.stdout.readline() == "0,1\n"
            second.communicate("\n")
