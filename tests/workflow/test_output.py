"""What a person sees of `colpipe run`: exactly these lines, between those that the jobs write themselves."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import forked
from tests.conftest import CHECKOUT

TOKENIZER = "results/tiny/tokenizer/manifest.json"
BOOLQ = "results/tiny/data/boolq/manifest.json"
COMMAND = [sys.executable, "-P", "-m", "colpipe", "run", "my-study.yaml"]


@pytest.fixture
def home(study, inputs, tmp_path, monkeypatch) -> Path:
    """A folder with inputs/, to be changed at will, and my-study.yaml."""
    (tmp_path / "inputs").mkdir()
    for path in inputs.iterdir():
        (tmp_path / "inputs" / path.name).symlink_to(path)
    (tmp_path / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return tmp_path


def run(home: Path, *words: str) -> tuple[int, list[str]]:
    """(status, lines on both streams) but for the profile's, with all times as 0:00."""
    done = subprocess.run(
        [*COMMAND, *words], cwd=home, capture_output=True, text=True, env=forked.environment(CHECKOUT)
    )
    return done.returncode, lines_of(done.stderr + done.stdout)


def lines_of(text: str) -> list[str]:
    """Lines without the one on the profile and without those of jobs, with all times as 0:00."""
    lines = re.sub(r"\b\d+:\d\d\b", "0:00", text).splitlines()
    own = r"Using workflow specific profile|(fetch_dataset|train_tokenizer|prepare_instructions) (resources|results)/"
    return [re.sub(r" +0:00", " 0:00", line) for line in lines if not re.match(own, line)]


def test_a_run_a_dry_run_and_nothing_to_be_done(home):
    assert run(home, TOKENIZER, "-n") == (
        0,
        [
            "tiny: 2 jobs to run, 0 done; results/tiny/",
            "  fetch_dataset articles-6dc58d45",
            "  train_tokenizer",
            "2 jobs: 1 fetch_dataset, 1 train_tokenizer; this was a dry run",
        ],
    )
    assert run(home, TOKENIZER) == (
        0,
        [
            "tiny: 2 jobs to run, 0 done; results/tiny/",
            "[1/2] fetch_dataset articles-6dc58d45 0:00   about 0:00 left",
            "[2/2] train_tokenizer 0:00",
            "done in 0:00; results/tiny/",
            "next: colpipe show results/tiny",
        ],
    )
    nothing = ["Nothing to be done: all of it is there already; results/tiny/", "next: colpipe show results/tiny"]
    assert run(home, TOKENIZER) == (0, nothing)
    assert run(home, TOKENIZER, "-n") == (0, nothing)
    assert run(home, TOKENIZER, "-n", "--config", "seed=7") == (
        0,
        [
            "tiny: 1 job to run, 1 done; results/tiny/",
            "  train_tokenizer  again: seed 0 → 7",
            "1 job: 1 train_tokenizer; this was a dry run",
        ],
    )
    code, lines = run(home, TOKENIZER, "-n", "--forcerun", "fetch_dataset")
    assert code == 0 and lines[1:3] == [
        "  fetch_dataset articles-6dc58d45  again",
        "  train_tokenizer                  again",
    ]
    code, lines = run(home, TOKENIZER, "--logger", "rich")  # another logger is another's choice
    assert code == 0 and not any("colpipe show" in line for line in lines)


def test_a_failing_job_and_what_goes_on_beside_it(home):
    (home / "inputs/boolq").unlink()
    (home / "inputs/boolq").mkdir()
    (home / "inputs/boolq/dev.jsonl").write_text('{"question": "is it", "passage": "It is."}\n')
    code, lines = run(home, BOOLQ)
    log = "results/tiny/logs/prepare_instructions/boolq.log"
    begin = lines.index("failed: prepare_instructions boolq after 0:00")
    assert code == 1 and lines[begin + 1] == f"    {log}, all of it:"
    assert lines[begin + 2].endswith("train: 0 of 0 rows, 0 passed over as too long")
    assert "error: results/tiny/data/boolq: the data set has no instructions" in lines[-4]
    assert lines[-3:] == [
        "1 job failed after 0:00; 3 done, 0 not run:",
        f"    prepare_instructions boolq  {log}",
        "next: see their logs; then the same command goes on from what is there",
    ]
    assert not any("--settings" in line or "Error in rule" in line for line in lines)


def test_ctrl_c_is_one_line(home):
    """Sent to all of the group, as a terminal does, when the first command is told."""
    process = subprocess.Popen(
        [*COMMAND, TOKENIZER, "--printshellcmds", "--cores", "1"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=forked.environment(CHECKOUT),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in process.stdout:
        if line.startswith("train_tokenizer: python"):
            break
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 1
    assert lines_of(rest)[-1] == "stopped after 0:00: 1 of 2 jobs done; the same command goes on from here"
    assert "--settings" not in rest and "Error in rule" not in rest and "failed:" not in rest
    code, lines = run(home, TOKENIZER)
    assert code == 0 and lines[0] == "tiny: 1 job to run, 1 done; results/tiny/"


def test_a_reader_that_leaves_is_no_error(home):
    """As `head` does."""
    process = subprocess.Popen(
        [*COMMAND, "-n"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=forked.environment(CHECKOUT),
    )
    assert process.stdout.readline() == "tiny: 36 jobs to run, 0 done; results/tiny/\n"
    process.stdout.close()
    assert lines_of(process.stderr.read()) == [] and process.wait() == 0


def test_an_error_before_the_first_job_is_one_line(home, study):
    (home / "my-study.yaml").write_text(yaml.safe_dump({**study, "nonsense": 1}, sort_keys=False))
    assert run(home, "-n") == (1, [f"error: {home}/my-study.yaml: nonsense: unknown key"])
