"""The profiles for Slurm, with a real Slurm of two nodes whose devices are none."""

import fcntl
import json
import re
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import forked
from tests.cluster.conftest import JOBS, contents, index_at, small_study
from tests.cluster.slurm import Slurm, why_not
from tests.conftest import checkout, snakemake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

# Snakemake that asks for its jobs every two seconds: the plugin waits ten seconds longer each time that none has ended.
IMPATIENT = """
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, articles):
    """A Slurm, and wheels at an `address` that only this side of it reaches."""
    handler = partial(SimpleHTTPRequestHandler, directory=articles.index)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        slurm = Slurm(tmp_path_factory.mktemp("slurm"))
        slurm.address = f"http://127.0.0.1:{server.server_port}/"
        slurm.environment |= index_at(slurm.address)
        yield slurm
        slurm.stop()
        server.shutdown()


@pytest.fixture
def start(slurm, tmp_path, inputs, articles):
    """Starts Snakemake with a profile in a checkout of its own; `study` and `profile_lines` change what is run, and how.
    Stages that are forks of the tests' server start faster, and are not in their node's network."""

    def start(
        profile: str, *arguments: str, study: dict | None = None, profile_lines: str = "", forks: bool = True
    ) -> SimpleNamespace:
        home = tmp_path / profile
        home.mkdir()
        checkout(home, inputs, study or small_study(articles))
        if profile_lines:
            with open(home / "workflow/profiles" / profile / "profile.v9+.yaml", "a") as file:
                file.write(f"set-resources:\n{profile_lines}")
        quick = "--latency-wait 5 --max-threads 1 --slurm-no-account --slurm-status-command squeue"
        quick += " --slurm-init-seconds-before-status-checks 2 --slurm-keep-successful-logs"
        command = [sys.executable, "-c", IMPATIENT, *arguments, "--configfile", "my-study.yaml"]
        command += ["--workflow-profile", f"workflow/profiles/{profile}", *quick.split()]
        log = open(home / "snakemake.log", "w")
        environment = slurm.environment | (forked.variables() if forks else {})
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        return SimpleNamespace(home=home, process=process)

    return start


def end(run: SimpleNamespace) -> tuple[int, str]:
    """Exit status and output of a run."""
    return run.process.wait(), (run.home / "snakemake.log").read_text()


def wait_until(ready, run: SimpleNamespace):
    """What `ready` gives, as soon as it is true."""
    while not (found := ready()):
        assert run.process.poll() is None, end(run)[1]
        time.sleep(0.1)
    return found


def state_of(run: SimpleNamespace, folder: str) -> int:
    """Complete states in a work folder."""
    return len(list(run.home.glob(f"results/small/work/{folder}/state-*/trainer/checkpoint-*/complete")))


def test_studies_equal_a_local_one(slurm, start, local):
    """Both profiles at once, data from an address that jobs cannot reach."""
    runs = {
        "slurm-gpu": start(
            "slurm-gpu", "recovered", profile_lines="  distill: {gpu: 1}\n  sft: {gpu: 1, runtime: 90}\n"
        ),
        "slurm-npu": start("slurm-npu", "recovered"),
    }
    for profile, run in runs.items():
        status, output = end(run)
        assert status == 0, output
        assert contents(run.home / "results" / "small") == local.contents, profile
        jobs = slurm.jobs(run.home)
        assert len(jobs) == JOBS and {job["JobState"] for job in jobs} == {"COMPLETED"}
        for job in jobs:
            partition = "cpu" if job["rule"].startswith(("train_", "prepare_", "assemble")) else profile[-3:]
            assert job["Partition"] == partition
            assert 3000 <= int(job["MinMemoryNode"].rstrip("M")) < 3100
            if partition == "npu":
                assert job["TresPerNode"] == "gres:npu:ascend910b:1"
            assert (job.get("TresPerJob") == "gres:gpu:1") == (
                profile == "slurm-gpu" and job["rule"] in ("distill", "sft")
            )
        limits = {job["rule"]: job["TimeLimit"] for job in jobs}
        assert limits["assemble"] == "01:00:00"
        assert limits["sft"] == ("01:30:00" if profile == "slurm-gpu" else "00:31:00")
    fetch = f"import urllib.request; urllib.request.urlopen({slurm.address!r}, timeout=5)"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        slurm.ask("srun", sys.executable, "-c", fetch)
    assert "Connection refused" in failed.value.stderr


def test_a_job_sees_the_device_that_it_was_granted(slurm, start, articles):
    """Two trainings at a time for each kind; no torch uses these devices, so that all end there, and say why."""
    variables = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
    reasons = {"cuda": "cuda cannot be used: torch", "npu": "npu cannot be used: torch_npu is not installed"}
    runs = {}
    for device, profile in (("cuda", "slurm-gpu"), ("npu", "slurm-npu")):
        study = small_study(articles)
        study["models"]["other"] = study["models"]["own"]
        study["ancestors"]["other"] = {"model": "other", "select": "even"}
        study["runtime"] = {"device": device}
        targets = [f"results/small/pretrained/{name}/manifest.json" for name in study["models"]]
        runs[device] = start(profile, *targets, "--retries", "0", study=study)
    for device, run in runs.items():
        assert end(run)[0] == 1
        trainings = [job for job in slurm.jobs(run.home) if job["rule"] == "pretrain"]
        texts = [Path(job["StdOut"]).read_text() for job in trainings]
        assert {job["JobState"] for job in trainings} == {"FAILED"}
        assert all(f"runtime.device: {reasons[device]}" in text for text in texts)
        granted = [re.findall(rf"pretrain: {variables[device]}=(\S+)", text) for text in texts]
        first, second = sorted(trainings, key=lambda job: job["StartTime"])
        if second["StartTime"] < first["EndTime"]:  # a busy machine may have them one after the other, both on device 0
            assert sorted(granted) == [["0"], ["1"]]
        assert all(each in (["0"], ["1"]) for each in granted)


def test_a_preempted_training_goes_on(slurm, start, tmp_path, inputs, articles):
    study = small_study(articles)
    study["stages"]["pretrain"] |= {"epochs": 60, "batch_size": 2}
    study["runtime"]["save_minutes"] = 0
    target = "results/small/pretrained/own/manifest.json"
    run = start("slurm-gpu", target, study=study)
    wait_until(lambda: state_of(run, "pretrained/own") >= 2, run)
    slurm.ask("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    status, output = end(run)
    assert status == 0, output
    [training] = [job for job in slurm.jobs(run.home) if job["rule"] == "pretrain"]
    assert training["Restarts"] == "1" and training["JobState"] == "COMPLETED"
    log = (run.home / "results/small/work/pretrained/own/log.txt").read_text()
    assert log.count("resumes at step") == 1
    (tmp_path / "alone").mkdir()
    alone = checkout(tmp_path / "alone", inputs, study)
    command = [target, "--configfile", "my-study.yaml", "--max-threads", "1"]
    snakemake(alone, *command, checkout=alone, env=forked.environment() | index_at(str(articles.index)))
    for name in ("manifest.json", "model.safetensors"):
        assert (run.home / target).with_name(name).read_bytes() == (alone / target).with_name(name).read_bytes()


def test_a_training_on_two_nodes(slurm, start, local, articles):
    """One process on each; the curve is that of one process."""
    lines = "  pretrain: {slurm_partition: \"'pair'\", nodes: 2, gpu: 2, mpi: \"'srun'\", tasks: 2, tasks_per_gpu: 0}\n"
    target = "results/small/pretrained/own/manifest.json"
    run = start("slurm-gpu", target, "--retries", "0", profile_lines=lines, forks=False)
    status, output = end(run)
    assert status == 0, output + "".join(path.read_text() for path in run.home.glob(".snakemake/slurm_logs/**/*.log"))
    [training] = [job for job in slurm.jobs(run.home) if job["rule"] == "pretrain"]
    assert training["NumNodes"] == "2" and training["NodeList"] == "node-[1-2]"
    curves = [
        [json.loads(line)["loss"] for line in (home / target).with_name("metrics.jsonl").read_text().splitlines()[:-1]]
        for home in (run.home, local.home)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert "2 processes" in Path(training["StdOut"]).read_text()


def test_a_failed_job_is_submitted_again(slurm, start):
    """The first fails because its work folder is taken."""
    run = start("slurm-gpu", "results/small/tokenizer/manifest.json")
    work = run.home / "results/small/work/tokenizer"
    work.mkdir(parents=True)
    with open(work / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_until(lambda: [job for job in slurm.jobs(run.home) if job["JobState"] == "FAILED"], run)
    status, output = end(run)
    assert status == 0, output
    jobs = {job["JobState"]: job for job in slurm.jobs(run.home)}
    assert set(jobs) == {"COMPLETED", "FAILED"}
    assert "another process is working there" in Path(jobs["FAILED"]["StdOut"]).read_text()
