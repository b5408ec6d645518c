"""What `colpipe run` says, from log records with the fields that Snakemake gives them."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from colpipe.pipeline.output import TAIL, Output, end_of, label_of, own_words
from tests.conftest import CHECKOUT

RESULTS = Path("results/mine")
PLANNED = [
    ("distill", "distill a/90M", True),
    ("distill", "distill a/60M", True),
    ("leakage", "leakage", True),
    ("sft", "sft a", False),
]


@pytest.fixture(autouse=True)
def nothing_ran_here_before(tmp_path, monkeypatch):
    """Times of studies that lie in the working directory would be told."""
    monkeypatch.chdir(tmp_path)


def run(planned=PLANNED, **settings):
    """(output, lines that it has written, a function that hands it a record of second `at`)."""
    off = ("dryrun", "printshellcmds", "verbose", "debug_dag")
    common = SimpleNamespace(**{**dict.fromkeys(off, False), "quiet": set(), "show_failed_logs": True, **settings})
    lines: list[str] = []
    output = Output(common, lines.append)
    if planned is not None:
        output.begin_study(RESULTS, lambda: planned, {"distill": "distill", "leakage": "leakage", "sft": "sft"})

    def tell(at: float, message: object = None, level: int = logging.INFO, **fields) -> None:
        record = logging.makeLogRecord({"msg": str(message), "levelno": level, "levelname": "", **fields})
        record.created = at
        output.take(record)

    return output, lines, tell


def job(number: int, rule: str, reason: str = "Missing output files: …", **wildcards) -> dict:
    path = "/".join(wildcards.values())
    return {
        "event": LogEvent.JOB_INFO,
        "jobid": number,
        "rule_name": rule,
        "wildcards": wildcards,
        "output": [] if rule == "chain" else [f"results/mine/{rule}/{path}/manifest.json"],
        "log": [f"results/mine/logs/{rule}/{path}.log"],
        "reason": reason,
        "shellcmd": None if rule == "chain" else f"python -P -m colpipe.jobs.start {rule} --output {path}",
    }


def done(number: int) -> dict:
    return {"event": LogEvent.JOB_FINISHED, "job_id": number}


def error(number: int, rule: str, logs: list[str]) -> dict:
    return {"event": LogEvent.JOB_ERROR, "jobid": number, "rule_name": rule, "log": logs, "level": logging.ERROR}


def status(rule: str, path: str, code: str) -> dict:
    text = (
        f'RuleException:\nCalledProcessError in file "/c/workflow/rules/{rule}.smk", line 42:\n'
        f"Command 'set -euo pipefail;  python -P -m colpipe.jobs.start {rule} --output {path}' {code}."
    )
    return {"message": text, "event": LogEvent.ERROR, "exception": "RuleException", "level": logging.ERROR}


BEGIN = {"event": LogEvent.RUN_INFO, "stats": {"distill": 2, "leakage": 1, "chain": 1, "total": 4}}
LAST = {
    "message": "WorkflowError:\nAt least one job did not complete successfully.",
    "event": LogEvent.ERROR,
    "exception": "WorkflowError",
    "level": logging.ERROR,
}


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A folder where the distillations of another study took 100 s each."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/other/chain/a/0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": "distill"}))
    (folder / "run.json").write_text(json.dumps({"seconds": 96.5}))  # and 3.5 to start


def test_a_line_for_each_job_with_the_time_left_and_where_the_results_are(earlier):
    output, lines, tell = run()
    tell(0, "Workflow has started!", event=LogEvent.WORKFLOW_STARTED)
    for chatter in ("Building DAG of jobs...", "Using shell: /bin/bash", "Select jobs to execute..."):
        tell(0, chatter)
    tell(0, "Job stats:\n…", **BEGIN)
    tell(0, "Execute 2 jobs...", event=LogEvent.JOB_STARTED, jobs=[1, 3])
    tell(0, **job(1, "distill", ancestor="a", member="90M"))
    tell(0, "Shell command: …", event=LogEvent.SHELLCMD, shellcmd="…")
    tell(0, **job(3, "leakage"))
    tell(50, **done(1))
    tell(50, event=LogEvent.PROGRESS, done=1, total=4)
    tell(60, **job(2, "distill", ancestor="a", member="60M"))
    tell(3660, **done(3))
    tell(3661, **done(2))
    tell(3661, **job(0, "chain"))
    tell(3661, **done(0))
    tell(3662, "Complete log(s): /x")
    output.end()
    output.end()
    assert lines == [
        "mine: 3 jobs to run, 1 done; results/mine/",
        # 100 s of work took 50, then 103.5 s took 3,660; 60 s of work in 60 s are counted before
        "[1/3] distill a/90M    0:50   about 1:11 left",
        "[2/3] leakage       1:01:00   about 37:55 left",
        "[3/3] distill a/60M 1:00:01",
        "done in 1:01:02; results/mine/",
        "next: colpipe show results/mine",
    ]


def test_without_earlier_runs_the_time_left_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, lines, tell = run()
    tell(0, **BEGIN)
    tell(0, **job(3, "leakage"))
    tell(1, **done(3))
    assert lines[-1] == "[1/3] leakage          0:01   time left unknown"


@pytest.mark.parametrize(
    ("rule", "place"),
    [("report", "report.html"), ("publish", "published/"), ("export", "exported/"), ("exhibit", "paper/"), ("sft", "")],
)
def test_where_the_results_are_is_what_was_asked_for(rule, place):
    output, lines, tell = run([("distill", "distill a/90M", False), (rule, rule, True)])
    tell(0, **BEGIN)
    tell(0, **job(1, rule))
    tell(5, **done(1))
    output.end()
    assert lines[-2:] == [f"done in 0:05; results/mine/{place}", "next: colpipe show results/mine"]


def test_a_failed_job_is_told_with_its_log_and_again_at_the_end(tmp_path):
    log = tmp_path / "90M.log"
    log.write_text("1\nerror: no space left\n")
    output, lines, tell = run()
    tell(0, **BEGIN)
    tell(1, **job(1, "distill", ancestor="a", member="90M"))
    tell(1, **job(3, "leakage"))
    tell(5, **status("distill", "a/90M", "returned non-zero exit status 1"))
    tell(5, **error(1, "distill", [str(log)]))
    tell(6, **done(3))
    tell(6, "Exiting because a job execution failed. Look below for error messages", level=logging.ERROR)
    tell(6, **LAST)
    output.end()
    assert lines == [
        "mine: 3 jobs to run, 1 done; results/mine/",
        "failed: distill a/90M after 0:04",
        f"    {log}, all of it:",
        "    1",
        "    error: no space left",
        "[1/3] leakage          0:05   time left unknown",
        "1 job failed after 0:06; 1 done, 1 not run:",
        f"    distill a/90M  {log}",
        "next: see their logs; then the same command goes on from what is there",
    ]


def test_a_job_that_was_killed_says_by_what_and_one_that_is_tried_again_has_not_failed():
    output, lines, tell = run([("distill", "distill a/90M", True)], show_failed_logs=False)
    tell(0, **BEGIN)
    tell(0, **job(1, "distill", ancestor="a", member="90M"))
    tell(3, **status("distill", "a/90M", "died with <Signals.SIGKILL: 9>"))
    tell(3, **error(1, "distill", ["x.log"]))
    tell(3, "Trying to restart job 1.")
    tell(3, **job(1, "distill", ancestor="a", member="90M"))
    tell(9, **done(1))
    output.end()
    assert lines[1:] == [
        "failed: distill a/90M after 0:03 (SIGKILL)",
        "Trying to restart job 1.",
        "[1/1] distill a/90M    0:06",
        "done in 0:09; results/mine/",
        "next: colpipe show results/mine",
    ]


@pytest.mark.parametrize("said", [True, False])
def test_after_ctrl_c_one_line(said):
    """Snakemake tells of it before the job, which ends with status 130, or after."""
    output, lines, tell = run()
    tell(0, **BEGIN)
    tell(0, **job(1, "distill", ancestor="a", member="90M"))
    if said:
        tell(7, "Terminating processes on user request, this might take some time.")
    tell(7, **status("distill", "a/90M", "returned non-zero exit status 130"))
    tell(7, **error(1, "distill", ["x.log"]))
    tell(7, **LAST)
    output.end()
    assert lines[1:] == ["stopped after 0:07: 0 of 3 jobs done; the same command goes on from here"]


def test_a_dry_run_lists_its_jobs_and_why():
    planned = [*PLANNED, ("report", "report", True)]
    output, lines, tell = run(planned, dryrun=True)
    tell(0, "results/mine/distill/a/90M is made again: training.steps 4 → 8")
    tell(0, **BEGIN)
    tell(0, **job(3, "leakage"))
    tell(0, **job(1, "distill", "Forced execution", ancestor="a", member="90M"))
    tell(0, **job(2, "distill", "Input files updated by another job: …", ancestor="a", member="60M"))
    tell(0, **job(4, "report", "Forced execution"))
    tell(0, **job(0, "chain", "Input files updated by another job: …"))
    tell(0, **BEGIN)
    tell(0, "Reasons:\n    …")
    tell(0, "This was a dry-run (flag -n). The order of jobs does not reflect the order of execution.")
    output.end()
    assert lines == [
        "mine: 4 jobs to run, 1 done; results/mine/",
        "  leakage",
        "  distill a/90M  again: training.steps 4 → 8",
        "  distill a/60M  again: what it is made of is made again",
        "  report         again",
        "4 jobs: 2 distill, 1 leakage, 1 report; this was a dry run",
    ]


def test_commands_on_request():
    for dryrun, line in ((False, "leakage: python"), (True, "    python")):
        _, lines, tell = run(printshellcmds=True, dryrun=dryrun)
        tell(0, **BEGIN)
        tell(0, **job(3, "leakage"))
        tell(0, **job(0, "chain"))
        assert lines[-1].startswith(line)


@pytest.mark.parametrize("kind", [Quietness.RULES, Quietness.PROGRESS])
def test_quiet_leaves_the_jobs_out_and_not_the_failures(kind):
    output, lines, tell = run(quiet={kind}, show_failed_logs=False)
    tell(0, **BEGIN)
    tell(0, **job(3, "leakage"))
    tell(0, **job(1, "distill", ancestor="a", member="90M"))
    tell(5, **done(3))
    tell(5, **error(1, "distill", ["x.log"]))
    output.end()
    assert [line.split()[0] for line in lines] == ["mine:", "failed:", "1", "distill", "next:"]


def test_quiet_about_all_still_says_what_went_wrong():
    output, lines, tell = run(quiet={Quietness.ALL}, show_failed_logs=False)
    tell(0, **BEGIN)
    tell(0, **job(3, "leakage"))
    tell(0, **job(1, "distill", ancestor="a", member="90M"))
    tell(0, "a warning", level=logging.WARNING)
    tell(5, **done(3))
    tell(5, **error(1, "distill", ["x.log"]))
    output.end()
    assert [line.split()[0] for line in lines] == ["a", "failed:", "1", "distill", "next:"]


def test_nothing_to_be_done():
    output, lines, tell = run([("report", "report", False)])
    tell(0, "Nothing to be done (all requested files are present and up to date).")
    output.end()
    assert lines == [
        "Nothing to be done: all of it is there already; results/mine/report.html",
        "next: colpipe show results/mine",
    ]


def test_a_target_that_makes_nothing_is_no_job():
    output, lines, tell = run([])
    tell(0, **BEGIN)
    tell(0, **job(0, "chain"))
    tell(4, **done(0))
    output.end()
    assert lines == ["done in 0:04"]


def test_what_is_said_beside_events_is_kept():
    _, lines, tell = run()
    said = (
        "results/mine/sft/a is made again: seed 0 → 1",
        "stages.distill.nonsense is not known",
        "Trying to restart job 3.",
    )
    for line in said:
        tell(0, line)
    tell(0, "a warning", level=logging.WARNING)
    tell(0, "hidden", level=logging.DEBUG)
    tell(0, "of a later Snakemake", event="new_event")
    assert lines == [*said, "a warning", "of a later Snakemake"]


def test_verbose_adds_what_snakemake_says():
    _, lines, tell = run(verbose=True)
    tell(0, "Building DAG of jobs...")
    tell(0, "a detail", level=logging.DEBUG)
    tell(0, "Job stats: …", **BEGIN)
    assert lines == [
        "Building DAG of jobs...",
        "a detail",
        "Job stats: …",
        "mine: 3 jobs to run, 1 done; results/mine/",
    ]


def test_errors_are_told_in_their_own_words():
    _, lines, tell = run(planned=None)
    place = 'WorkflowError in file "/c/workflow/rules/common.smk", line 48:\n'
    text = place + 'my.yaml: study: unknown key\n  File "/c/workflow/rules/common.smk", line 48, in <module>'
    tell(0, text, level=logging.ERROR, event=LogEvent.ERROR, exception="WorkflowError")
    tell(0, "LockException:\nError: …", level=logging.ERROR, event=LogEvent.ERROR, exception="LockException")
    assert lines[0] == "error: my.yaml: study: unknown key"
    assert lines[1].startswith("error: .: another run is at work here") and "--unlock" in lines[1]
    inner = (
        "Error:\n  WorkflowError:\n    results/mine: the study has nothing called 'x'\nWildcards:\n  a=b\nTraceback:\n…"
    )
    assert own_words(inner) == "results/mine: the study has nothing called 'x'"
    assert own_words("MissingRuleException:\nNo rule to produce x") == "No rule to produce x"
    told = (
        "No rule to produce a/b c (if you use input functions make sure that they don't raise unexpected exceptions)."
    )
    assert own_words(f"MissingRuleException:\n{told}").startswith(
        "a/b c: no rule makes such a file (targets: colpipe run"
    )
    missing = 'MissingInputException in rule a in file "/c/Snakefile", line 2:\nMissing input files for rule a'
    assert own_words(missing) == missing  # as it is, where it has another form


def test_an_error_whose_job_is_unknown_is_told_whole():
    _, lines, tell = run()
    tell(0, **status("distill", "a/90M", "returned non-zero exit status 1"))
    assert len(lines) == 1 and "colpipe.jobs.start distill --output a/90M" in lines[0]


def test_the_end_of_a_log(tmp_path):
    log = tmp_path / "x.log"
    assert end_of(log) == [f"{log}: no such log"]
    log.write_text("")
    assert end_of(log) == [f"{log}: an empty log"]
    log.write_text("".join(f"{number}\n" for number in range(2000)))
    first, *rest = end_of(log)
    assert first == f"{log}, the last 12 of 2,000 lines:" and rest == [
        str(number) for number in range(2000 - TAIL, 2000)
    ]


def test_labels():
    assert label_of("leakage", {}) == "leakage"
    assert label_of("recover", {"ancestor": "a", "desnet": "b", "init": "c", "budget": "1k"}) == "recover a/b/c/1k"


def test_the_plugin_loads_no_torch():
    code = "import sys, snakemake_logger_plugin_colpipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == 0
