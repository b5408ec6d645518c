"""What `colpipe run` says: Snakemake's log records as one line a job, and where the results are (no torch here).

The logger plugin `snakemake_logger_plugin_colpipe` hands every record on to `Output`. Jobs of targets, which make nothing,
are not counted. What Snakemake says beside its events is passed on, except for what says nothing about this run.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from colpipe.jobs.job import STOPPED, clock
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.time_left import Estimate

TAIL = 12  # lines of a failed job's log that are shown
WIDEST = 56  # columns of the longest name that others are aligned to
INTERRUPTED = 130  # exit status of a stage after Ctrl-C
# Beginnings of what Snakemake says of itself.
CHATTER = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Complete log(s)",
    "Conda environments: ignored",
    "Elapsed time",
    "Execute ",
    "Exiting because a job execution failed",
    "Finished jobid",
    "Group jobs: inactive",
    "Loading trusted IOCache",
    "Processed ",
    "Reasons:",
    "Removing output files of failed job",
    "Select jobs to execute",
    "Shutting down, this might take some time",
    "Singularity containers: ignored",
    "Some jobs were triggered by provenance information",
    "This was a dry-run",
    "Touching output file",
    "Updating checkpoint dependencies",
    "Using shell",
)
QUIET_EVENTS = (  # Snakemake's, of which nothing is said
    *(LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.PROGRESS),
    *(LogEvent.SHELLCMD, LogEvent.GROUP_INFO, LogEvent.RULEGRAPH),
)
PLACES = {"report": "report.html", "publish": "published/", "export": "exported/", "exhibit": "paper/"}
AGAIN = re.compile(r"(.+) is made again: (.+)", re.DOTALL)
STATUS = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
# What stands around an error's own words: the exception's name with a place in a Snakefile, and a traceback into one.
AROUND = re.compile(
    r'^\w+(Error|Exception)( in file ".*", line \d+)?:\n|^  File ".*", line \d+, in .*\n?', re.MULTILINE
)
IN_A_FUNCTION = re.compile(r"Error:\n +WorkflowError:\n +(.*?)\nWildcards:.*", re.DOTALL)
NO_RULE = re.compile(r"No rule to produce (.+) \(if you use input functions .*\)\.")


@dataclass
class Told:
    """A job as Snakemake told of it."""

    rule: str
    label: str
    started: float
    logs: list[str]
    command: str
    makes_something: bool
    status: str = ""


class Output:
    """The lines of one run.

    Args:
        settings: Snakemake's, for output: `dryrun`, `printshellcmds`, `quiet`, `verbose`, `debug_dag`, `show_failed_logs`.
        write: takes one line.
    """

    def __init__(self, settings, write: Callable[[str], object]):
        self._settings, self._complain = settings, write
        self._quiet = {kind.name for kind in settings.quiet or ()}
        silent = "ALL" in self._quiet and not settings.dryrun  # but for what went wrong
        self._write = (lambda line: None) if silent else write
        self._results: Path | None = None
        self._planned: Callable[[], Iterable[tuple[str, str, bool]]] = lambda: ()
        self._names: dict[str, str] = {}
        self._rules, self._left, self._done = set[str](), Counter[str](), Counter[str]()
        self._total, self._width = 0, 0
        self._jobs: dict[int, Told] = {}
        self._failed: dict[int, Told] = {}
        self._stopped: dict[int, Told] = {}
        self._reasons: dict[str, str] = {}
        self._began = self._now = 0.0
        self._state = ""  # "", running, nothing, interrupted

    def begin_study(
        self,
        results: Path,
        planned: Callable[[], Iterable[tuple[str, str, bool]]],
        names: dict,
        guess: Callable[[], Mapping[str, float]] = dict,
        shares: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """What Snakemake does not tell a logger.

        Args:
            results: `results/<study>/`.
            planned: gives (rule, label, whether it has to run) of every job that makes something.
            names: of rules in Snakemake → in the rule table.
            guess, shares: as in `Estimate`.
        """
        self._results, self._planned, self._names = results, planned, names
        self._estimate = Estimate(results, guess, shares)

    def take(self, record: logging.LogRecord) -> None:
        """Say what a record tells, if anything."""
        event, self._now = getattr(record, "event", None), record.created
        if self._settings.verbose or self._settings.debug_dag:
            self._take_whole(record, event)
        if record.levelno < logging.INFO or (event is None and self._settings.verbose):
            return
        if event is None:
            self._message(record)
        elif event == LogEvent.WORKFLOW_STARTED:
            self._began = record.created
        elif event == LogEvent.RUN_INFO:
            self._begin(record.created)
        elif event == LogEvent.JOB_INFO:
            self._start(record)
        elif event == LogEvent.JOB_FINISHED:
            self._finish(record.job_id)  # type: ignore[attr-defined]
        elif event == LogEvent.JOB_ERROR:
            self._fail(vars(record))
        elif event == LogEvent.GROUP_ERROR:
            for info in record.job_error_info:  # type: ignore[attr-defined]
                self._fail({**info, "log": [*info["log"], *record.aux_logs]})  # type: ignore[attr-defined]
        elif event == LogEvent.ERROR:
            self._error(record)
        elif event not in (*QUIET_EVENTS, LogEvent.DEBUG_DAG):
            self._write(record.getMessage())

    def _take_whole(self, record: logging.LogRecord, event: LogEvent | None) -> None:
        """All that Snakemake says, as it says it."""
        from snakemake.logging import DefaultFormatter

        wanted = event == LogEvent.DEBUG_DAG if self._settings.debug_dag else self._settings.verbose
        if wanted and event != LogEvent.SHELLCMD and (text := DefaultFormatter(set()).format(record)) != "None":
            self._write(text)

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage().rstrip()
        if text.startswith("Nothing to be done"):
            self._state = "nothing"
        elif text.startswith("Terminating processes on user request"):
            self._state = "interrupted"
        elif self._settings.dryrun and (again := AGAIN.fullmatch(text)):
            self._reasons[again[1]] = again[2]
        elif text not in ("", "None") and not text.startswith(CHATTER):
            (self._write if record.levelno == logging.INFO else self._complain)(text)

    def _begin(self, when: float) -> None:
        """Before the first job; a dry run tells it a second time at its end."""
        if self._state:
            return
        self._state, self._began = "running", self._began or when
        planned = list(self._planned())
        self._rules = {self._names.get(rule, rule) for rule, _, _ in planned}
        self._left = Counter(self._names.get(rule, rule) for rule, _, needed in planned if needed)
        self._total = self._left.total()
        self._width = max((len(label) for _, label, needed in planned if needed and len(label) <= WIDEST), default=0)
        if self._total:
            there = len(planned) - self._total
            self._write(f"{self._results.name}: {_jobs(self._total)} to run, {there:,} done; {self._results}/")

    def _start(self, record: logging.LogRecord) -> None:
        info = vars(record)
        name, logs = info["rule_name"], list(info["log"])
        label = label_of(name, info["wildcards"])
        job = Told(name, label, record.created, logs, info["shellcmd"] or "", bool(info["output"]))
        self._jobs[info["jobid"]] = job
        if self._settings.dryrun and job.makes_something and not self._quiet & {"RULES", "PROGRESS"}:
            reason = self._reason(info["output"], info["reason"])
            self._write(f"  {label:<{self._width}}  {reason}".rstrip())
        if self._settings.printshellcmds and job.command:
            self._write(f"    {job.command}" if self._settings.dryrun else f"{label}: {job.command}")

    def _reason(self, output: list[str], said: str) -> str:
        """Why a result that is there is made again."""
        folder = str(Path(output[0]).parent)
        if "REASON" in self._quiet or said.startswith("Missing output files"):
            return ""
        if folder in self._reasons:
            return f"again: {self._reasons[folder]}"
        # Forced by the user, or for a reason that is not told because there are many.
        return "again" if said == "Forced execution" else "again: what it is made of is made again"

    def _finish(self, number: int) -> None:
        job = self._jobs.get(number)
        self._failed.pop(number, None)
        self._stopped.pop(number, None)
        if job is None or not job.makes_something:
            return
        rule = self._names.get(job.rule, job.rule)
        self._left[rule] -= 1
        self._done[rule] += 1
        if self._quiet & {"RULES", "PROGRESS"}:
            return
        digits = len(str(self._total))
        count = f"[{self._done.total():>{digits}}/{self._total}]"
        took = clock(self._now - job.started)
        self._write(f"{count} {job.label:<{self._width}} {took:>7}   {self._time_left()}".rstrip())

    def _time_left(self) -> str:
        if self._results is None or not +self._left:
            return ""
        self._estimate.look()
        seconds = self._estimate.of_run(self._left, self._done, self._now - self._began)
        return "time left unknown" if seconds is None else f"about {clock(seconds)} left"

    def _fail(self, info: dict) -> None:
        number = info["jobid"]
        unseen = Told(info["rule_name"], info["rule_name"], self._now, [], "", True)
        job = self._jobs.setdefault(number, unseen)
        job.logs = list(info["log"])
        if self._state == "interrupted" or job.status in (str(INTERRUPTED), str(STOPPED)):
            self._stopped[number] = job
            return
        self._failed[number] = job
        status = f" ({job.status})" if job.status.startswith("SIG") else ""
        self._complain(f"failed: {job.label} after {clock(self._now - job.started)}{status}")
        if self._settings.show_failed_logs:
            for path in job.logs:
                for line in end_of(Path(path)):
                    self._complain(f"    {line}")

    def _error(self, record: logging.LogRecord) -> None:
        text, kind = record.getMessage(), getattr(record, "exception", "")
        if status := STATUS.search(text):
            job = next((job for job in self._jobs.values() if job.command and job.command in text), None)
            if job:  # what it has to say is in its log, and Snakemake tells next that it failed
                job.status = status[1] or status[2]
                return
        if "At least one job did not complete successfully" in text and (self._failed or self._stopped or self._state):
            return
        if kind == "LockException":
            here = self._results or Path(".")
            text = (
                f"{here}: another run is at work here, or one was killed; then the same command with --unlock, "
                "and once more without"
            )
        self._complain(f"error: {own_words(text)}")

    def end(self) -> None:
        """The last lines: what has come of it, where it is, and the next command."""
        state, self._state = self._state, "ended"
        if state == "nothing" and self._results:
            asked = {self._names.get(rule, rule) for rule, _, _ in self._planned()}
            self._write(f"Nothing to be done: all of it is there already; {self._where(asked)}")
            self._write(f"next: colpipe show {self._results}")
        elif state == "nothing":
            self._write("Nothing to be done: all of it is there already")
        elif state == "running" and self._settings.dryrun and self._total:
            rules = [
                *(rule for rule in RULES if rule in self._left),
                *(rule for rule in self._left if rule not in RULES),
            ]
            counts = ", ".join(f"{self._left[rule]:,} {rule}" for rule in rules)
            self._write(f"{_jobs(self._total)}: {counts}; this was a dry run")
        elif state in ("running", "interrupted") and not self._settings.dryrun:
            self._tell_how_it_went(state == "interrupted")

    def _tell_how_it_went(self, interrupted: bool) -> None:
        took, done = clock(self._now - self._began), self._done.total()
        if self._failed:
            waiting = self._total - done - len(self._failed)
            self._complain(f"{_jobs(len(self._failed))} failed after {took}; {done:,} done, {waiting:,} not run:")
            width = max(len(job.label) for job in self._failed.values())
            for job in self._failed.values():
                self._complain(f"    {job.label:<{width}}  {' '.join(job.logs)}".rstrip())
            self._complain("next: see their logs; then the same command goes on from what is there")
        elif interrupted or self._stopped or done < self._total:
            self._write(
                f"stopped after {took}: {done:,} of {_jobs(self._total)} done; the same command goes on from here"
            )
        elif self._total and self._results:
            self._write(f"done in {took}; {self._where(self._rules)}")
            self._write(f"next: colpipe show {self._results}")
        else:
            self._write(f"done in {took}")

    def _where(self, rules: set[str]) -> str:
        """What was asked for, of jobs of these rules."""
        places = [f"{self._results}/{place}" for rule, place in PLACES.items() if rule in rules]
        return ", ".join(places) or f"{self._results}/"


def label_of(rule: str, wildcards) -> str:
    """A job as lines name it: its rule, and what it makes below the folder of the rule."""
    return " ".join([rule, *(["/".join(wildcards.values())] if wildcards else [])])


def end_of(path: Path) -> list[str]:
    """Path of a log, and its last lines."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return [f"{path}: no such log"]
    if not lines:
        return [f"{path}: an empty log"]
    shown = f"the last {TAIL} of {len(lines):,} lines" if len(lines) > TAIL else "all of it"
    return [f"{path}, {shown}:", *lines[-TAIL:]]


def own_words(text: str) -> str:
    """An error without the places in Snakefiles around it."""
    text = AROUND.sub("", text)
    if found := IN_A_FUNCTION.search(text):
        text = found[1]
    return NO_RULE.sub(r"\1: no rule makes such a file (targets: colpipe run STUDY --list-target-rules)", text.strip())


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"
