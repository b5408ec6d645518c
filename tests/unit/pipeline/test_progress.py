"""The time left, from results with known times; then as `snakemake --logger rich` shows it."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import defaultdict
from statistics import fmean
from types import SimpleNamespace

import pytest
from rich.progress import Progress

from colpipe.config.loading import load_study
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.progress import TimeLeft
from colpipe.pipeline.schedule import START
from colpipe.pipeline.snakefile import connect_loggers
from colpipe.pipeline.time_left import Estimate, seconds_by_work, shares_of_cores
from tests.conftest import CHECKOUT


def finish(folder, stage: str, seconds: float) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": stage}))
    (folder / "run.json").write_text(json.dumps({"seconds": seconds}))


@pytest.fixture
def bars(tmp_path, monkeypatch):
    """Bars as the plugin has them, under a clock that is set by hand: (clock, rule → bar, text of a rule's column)."""
    monkeypatch.chdir(tmp_path)
    for number, seconds in enumerate((96.5, 104.5)):
        finish(tmp_path / f"results/mine/chain/a/{number}", "distill", seconds)
    finish(tmp_path / "results/other/chain/a/0", "distill", 9999)  # this study's own count
    finish(tmp_path / "results/other/sft/a", "sft", 46.5)  # but it has not run this one
    clock = SimpleNamespace(now=0.0)
    progress = Progress(get_time=lambda: clock.now, disable=True)
    column = TimeLeft(progress, tmp_path / "results/mine")
    monkeypatch.setattr(TimeLeft, "max_refresh", 0)
    ids = {
        rule: progress.add_task(rule, total=total)
        for rule, total in {"Total Progress": 8, "distill": 4, "sft": 2, "all": 1, "report": 1}.items()
    }

    def text(rule: str) -> str:
        return column.render(progress.tasks[ids[rule]]).plain

    def complete(rule: str) -> None:
        for name in (rule, "Total Progress"):
            progress.advance(ids[name])

    return SimpleNamespace(clock=clock, text=text, complete=complete, column=column, progress=progress, ids=ids)


def test_the_time_left_is_that_of_earlier_jobs(bars):
    assert bars.text("distill") == "6:56 of work left"  # 4 × (mean of 96.5 and 104.5, and the start of a job)
    assert bars.text("sft") == "1:40 of work left"
    assert bars.text("all") == "0:00 of work left"  # a target
    assert bars.text("report") == f"0:0{round(START)} of work left"  # none has run: light
    assert bars.text("Total Progress") == "about 8:40 left"  # one after the other, until something is known


def test_it_counts_down_and_learns_how_fast_this_run_is(bars):
    assert bars.text("Total Progress") == "about 8:40 left"
    bars.clock.now = 60.0
    assert bars.text("Total Progress") == "about 7:40 left"
    for _ in range(2):
        bars.complete("distill")  # two at once, or a machine twice as fast: 208 s of work in 104
    bars.clock.now = 104.0
    assert bars.text("Total Progress") == "about 3:11 left"  # 5:11.5 at (208 + 60) / (104 + 60)
    bars.clock.now = 114.0
    assert bars.text("Total Progress") == "about 3:01 left"
    bars.clock.now = 9999.0
    assert bars.text("Total Progress") == "time left unknown"  # and not 0:00 for as long as it takes


def test_short_first_jobs_do_not_make_a_run_look_endless(bars):
    """A busy machine takes its time to start; two jobs of 4 s in 60 s are no reason to foresee an hour."""
    before = bars.progress.add_task("report", total=2)
    bars.progress.advance(before, 2)
    bars.clock.now = 60.0
    assert bars.text("Total Progress") == "about 15:24 left"  # 8:36 at (7 + 60) / (60 + 60), and not 74 minutes


def test_a_rule_of_which_no_job_has_run_is_unknown_and_the_whole_with_it(bars):
    task = bars.progress.add_task("recover", total=2)
    assert bars.column.render(bars.progress.tasks[-1]).plain == bars.text("Total Progress") == "time left unknown"
    assert bars.text("sft") == "1:40 of work left"
    bars.progress.advance(task, 2)
    assert bars.text("Total Progress") == "about 8:40 left"


def test_jobs_of_this_run_count(bars, tmp_path, monkeypatch):
    bars.text("sft")
    finish(tmp_path / "results/mine/sft/a", "sft", 6.5)
    assert bars.text("sft") == "1:40 of work left"  # not looked again so soon
    bars.column.estimate._last_look -= 60
    assert bars.text("sft") == "0:20 of work left"


def test_names_as_the_plugin_writes_them(bars, tmp_path):
    finish(tmp_path / "results/mine/answers/a", "bridge_answers", 16.5)
    for description in ("[dim]bridge answers[/]", "[red]✗[/] bridge answers [red](failed)[/]", "bridge answers"):
        task = bars.progress.add_task(description, total=3)
        assert bars.column.render(bars.progress.tasks[-1]).plain == "1:00 of work left"
        bars.progress.remove_task(task)


def test_without_earlier_runs_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    progress = Progress(disable=True)
    task = progress.add_task("distill", total=3)
    progress.add_task("Total Progress", total=3)
    for number in (task, task + 1):
        shown = TimeLeft(progress, tmp_path / "results/mine").render(progress.tasks[number]).plain
        assert shown == "time left unknown"


def test_a_first_run_has_the_work_of_its_jobs_to_go_by(tmp_path, monkeypatch):
    """Until one has run; what is there then has other sizes, and is looked at again."""
    monkeypatch.chdir(tmp_path)
    finish(tmp_path / "results/other/chain/a/0", "distill", 9999)  # of models of another size
    asked = []

    def guess() -> dict[str, float]:
        asked.append(len(asked))
        return {"distill": 96.5 / len(asked)}

    progress = Progress(disable=True)
    progress.add_task("distill", total=3)
    column = TimeLeft(progress, tmp_path / "results/mine", guess)
    for _ in range(2):
        assert column.render(progress.tasks[0]).plain == "5:00 of work left"
    finish(tmp_path / "results/mine/sft/a", "sft", 46.5)
    column.estimate._last_look -= 60
    assert column.render(progress.tasks[0]).plain == "2:35 of work left" and asked == [0, 1]
    finish(tmp_path / "results/mine/chain/a/0", "distill", 6.5)
    column.estimate._last_look -= 60
    assert column.render(progress.tasks[0]).plain == "0:30 of work left" and asked == [0, 1]
    progress.add_task("stack", total=1)
    assert column.render(progress.tasks[1]).plain == "time left unknown"


def test_seconds_by_work(study, inputs, monkeypatch):
    """FLOPs of the jobs that are not done, over the rate of their threads."""
    monkeypatch.chdir(inputs.parent)
    (inputs.parent / "inputs").exists() or (inputs.parent / "inputs").symlink_to(inputs)
    monkeypatch.setattr("colpipe.pipeline.time_left.training_rate", lambda precision: 2e6)
    monkeypatch.setattr("colpipe.pipeline.time_left.cores", lambda: 8)
    plan = Plan(load_study(study, "study"))
    works = defaultdict(list)
    for job, work in plan.work_by_job():
        works[job.rule].append(work.flops)
    found = seconds_by_work(plan)
    assert "fetch_model" not in found and found["distill"] > 1
    assert found["distill"] == pytest.approx(fmean(works["distill"]) / 4 / 2e6)  # half of the cores
    assert found["evaluate"] == pytest.approx(fmean(works["evaluate"]) / 2e6)


def test_jobs_that_run_side_by_side_take_their_share_of_the_machine(tmp_path, monkeypatch):
    """A run of which a training had all cores, then scores on one each: its speed is the same for both."""
    monkeypatch.chdir(tmp_path)
    finish(tmp_path / "results/mine/sft/a", "sft", 996.5)
    finish(tmp_path / "results/mine/scores/a", "evaluate", 96.5)
    for shares, left in (({"sft": 1.0, "evaluate": 0.5}, 500), ({}, 1000)):
        estimate = Estimate(tmp_path / "results/mine", shares=lambda shares=shares: shares)
        estimate.look()
        assert estimate.of_run({"evaluate": 10}, {"sft": 1}, 1000.0) == pytest.approx(left)


def test_shares_of_cores(study, inputs, monkeypatch):
    monkeypatch.chdir(inputs.parent)
    (inputs.parent / "inputs").exists() or (inputs.parent / "inputs").symlink_to(inputs)
    monkeypatch.setattr("colpipe.pipeline.time_left.cores", lambda: 8)
    found = shares_of_cores(Plan(load_study(study, "study")))
    assert found["distill"] == 0.5 and found["evaluate"] == found["fetch_model"] == 0.125


def test_loggers_without_bars_stay_as_they_are(tmp_path):
    handlers = SimpleNamespace(get_log_handlers=lambda: [SimpleNamespace()])
    modifier = SimpleNamespace(modify_rulename=lambda name: name)
    connect_loggers(SimpleNamespace(logger_manager=handlers, modifier=modifier), tmp_path)


def test_snakemake_with_the_rich_logger_shows_it(tmp_path):
    """On a terminal, with the published plugin."""
    pytest.importorskip("snakemake_logger_plugin_rich")
    finish(tmp_path / "results/mine/sft/a", "sft", 30)  # a run that is slow to start makes more of it
    (tmp_path / "Snakefile").write_text(
        "from pathlib import Path\n"
        "from colpipe.pipeline.snakefile import connect_loggers\n"
        "connect_loggers(workflow, Path('results/mine'))\n"
        "rule sft:\n    output: 'done'\n    shell: 'sleep 1; touch done'\n"
    )
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "rich"],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])},
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert process.wait() == 0, text
    assert re.search(r"Total Progress .*about 0:3\d left", text) and re.search(r"sft .*0:3\d of work left", text), text
