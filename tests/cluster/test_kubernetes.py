"""The profile for Kubernetes, with a command that stands in for kubectl: it keeps what it is given, and runs it here."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import forked
from tests.cluster.conftest import JOBS, contents, index_at, small_study
from tests.conftest import CHECKOUT, checkout, may_separate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

KUBECTL = """#!{python}
import json, pathlib, subprocess, sys
home, words = pathlib.Path("{home}"), sys.argv[1:]
if words[0] == "create":
    spec = json.load(sys.stdin)
    name = spec["metadata"]["generateName"] + str(len(list(home.glob("*.json"))))
    (home / f"{{name}}.json").write_text(json.dumps(spec))
    [container] = spec["spec"]["template"]["spec"]["containers"]
    if "{vanishes}" != spec["metadata"]["labels"]["rule"]:
        (home / f"{{name}}.state").write_text(",")
        runs = 'a=",1"; "$@" && a="1,"; echo $a > "$0"'
        with open(home / f"{{name}}.log", "w") as log:
            command = ["sh", "-c", runs, home / f"{{name}}.state", *container["command"]]
            subprocess.Popen(command, cwd=container["workingDir"], stdout=log, stderr=log, start_new_session=True)
    print(f"job.batch/{{name}}")
elif words[0] == "get":
    try:
        print((home / (words[1].removeprefix("job/") + ".state")).read_text().strip(), end="")
    except FileNotFoundError:
        sys.exit(1)
"""


@pytest.fixture
def run(tmp_path, inputs, articles):
    """Runs Snakemake with the profile: the finished process, its checkout, the jobs that were created."""

    def run(*arguments: str, vanishes: str = "none"):
        home, kept, commands = (tmp_path / name for name in ("home", "kept", "bin"))
        for folder in (home, kept, commands):
            folder.mkdir()
        (commands / "kubectl").write_text(KUBECTL.format(python=sys.executable, home=kept, vanishes=vanishes))
        (commands / "kubectl").chmod(0o755)
        checkout(home, inputs, small_study(articles))
        environment = forked.environment(snakemake=True) | index_at(str(articles.index)) | {"KUBERNETES_PAUSE": "0"}
        environment["PATH"] = f"{commands}:{environment['PATH']}"
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "my-study.yaml", "--max-threads", "1"]
        command += ["--workflow-profile", "workflow/profiles/kubernetes", "--latency-wait", "5"]
        command += ["--seconds-between-status-checks", "1"]
        result = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        return result, home, [json.loads(path.read_text()) for path in kept.glob("*.json")]

    return run


def test_a_study_equals_a_local_one(run, local):
    result, home, jobs = run("recovered", "--set-resources", "distill:gpu=1", "distill:device='huawei.com/Ascend910'")
    assert result.returncode == 0, result.stderr + result.stdout
    assert contents(home / "results" / "small") == local.contents
    assert len(jobs) == JOBS
    for job in jobs:
        [container] = job["spec"]["template"]["spec"]["containers"]
        asked, rule = container["resources"]["requests"], job["metadata"]["labels"]["rule"]
        assert container["resources"]["limits"] == asked
        assert asked["cpu"] == "1" and 3000 <= int(asked["memory"].removesuffix("M")) < 3100
        assert asked.get("huawei.com/Ascend910") == ("1" if rule == "distill" else None)
        assert "nvidia.com/gpu" not in asked
        assert container["image"] == "python:3.11" and container["workingDir"] == str(home)
        minutes = 60 if rule.startswith(("train_", "prepare_", "assemble")) else 31
        assert job["spec"]["activeDeadlineSeconds"] == 60 * minutes + 120


def test_a_job_that_is_gone_is_no_success(run):
    target = "results/small/tokenizer/manifest.json"
    result, home, jobs = run(target, "--retries", "1", vanishes="train_tokenizer")
    assert result.returncode == 1 and "Error in rule train_tokenizer" in result.stderr
    assert not (home / target).exists()
    assert [job["metadata"]["labels"]["rule"] for job in jobs].count("train_tokenizer") == 2  # submitted again, once


@pytest.mark.skipif(not may_separate("pid"), reason="no process namespace may be made here")
def test_a_pod_that_is_stopped_tells_its_processes(tmp_path):
    """What a container runs first, in a process namespace of its own."""
    command = runpy.run_path(str(CHECKOUT / "workflow/profiles/kubernetes/submit.py"))["COMMAND"]
    script = tmp_path / "script"
    script.write_text(f"trap 'echo told > {tmp_path}/said; exit 143' TERM; touch {tmp_path}/begun; sleep 30 & wait\n")
    pod = subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", command, script])
    while not (tmp_path / "begun").exists():
        assert pod.poll() is None
        time.sleep(0.01)
    first = Path(f"/proc/{pod.pid}/task/{pod.pid}/children").read_text()
    os.kill(int(first), signal.SIGTERM)
    assert pod.wait() == 143 and (tmp_path / "said").read_text() == "told\n"
