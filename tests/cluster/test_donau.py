"""The profile for Huawei Donau, with commands that stand in for dsub, djob and dkill."""

import os
import subprocess
import sys

import pytest

from tests import forked
from tests.cluster.conftest import JOBS, contents, index_at, small_study
from tests.conftest import checkout

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

DSUB = """#!/bin/sh
# Records its arguments; runs the script in the background; keeps its state. Jobs of the rule in $VANISHES never run.
number=$(ls {home} | grep -c arguments)
printf '%s\\n' "$*" > {home}/$number.arguments
for script; do :; done
case "$*" in
    *"-n colpipe-$VANISHES "*) ;;
    *) echo RUNNING > {home}/$number.state
       (if sh "$script"; then s=SUCCEEDED; else s=FAILED; fi; echo $s > {home}/$number.state) > {home}/$number.log 2>&1 & ;;
esac
echo "Submit job <$number> successfully."
"""
DJOB = """#!/bin/sh
for number; do :; done
cat {home}/$number.state 2>/dev/null
"""


@pytest.fixture
def donau(tmp_path, articles):
    """What makes the stand-ins take the place of Donau's commands: the environment, and the folder they write to."""
    home, commands = tmp_path / "donau", tmp_path / "bin"
    home.mkdir()
    commands.mkdir()
    for name, text in (("dsub", DSUB), ("djob", DJOB), ("dkill", "#!/bin/sh\n")):
        (commands / name).write_text(text.replace("{home}", str(home)))
        (commands / name).chmod(0o755)
    environment = {
        **forked.environment(snakemake=True),
        **index_at(str(articles.index)),
        "PATH": f"{commands}:{os.environ['PATH']}",
        "DONAU_PAUSE": "0",
        "VANISHES": "none",
    }
    return environment, home


def run(home, environment, *arguments):
    profile = ["--workflow-profile", "workflow/profiles/donau-npu", "--latency-wait", "5"]
    faster = ["--seconds-between-status-checks", "1"]
    command = [sys.executable, "-m", "snakemake", "--configfile", "my-study.yaml", "--max-threads", "1"]
    return subprocess.run(
        [*command, *profile, *faster, *arguments], cwd=home, env=environment, capture_output=True, text=True
    )


def test_a_study_equals_a_local_one(tmp_path, inputs, articles, local, donau):
    environment, records = donau
    home = checkout(tmp_path, inputs, small_study(articles))
    result = run(
        home, environment, "recovered", "--set-resources", "distill:gpu=1", "distill:runtime=90", "sft:queue=big"
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert contents(home / "results" / "small") == local.contents
    asked = [path.read_text() for path in records.glob("*.arguments")]
    assert len(asked) == JOBS
    [sft] = [line for line in asked if "-n colpipe-sft " in line]
    assert "-q big " in sft and ",npu=" not in sft
    distilled = [line for line in asked if "-n colpipe-distill " in line]
    assert len(distilled) == 2 and all(",npu=1 -T 5400 " in line for line in distilled)


def test_a_job_that_vanishes_is_no_success(tmp_path, inputs, articles, donau):
    environment, records = donau
    home = checkout(tmp_path, inputs, small_study(articles))
    target = "results/small/tokenizer/manifest.json"
    result = run(home, {**environment, "VANISHES": "train_tokenizer"}, target, "--retries", "1")
    assert result.returncode == 1
    assert "Error in rule train_tokenizer" in result.stderr
    assert not (home / target).exists()
    assert len(list(records.glob("*.arguments"))) == 2  # submitted again, once
