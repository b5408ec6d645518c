"""Time left of a run, from what earlier jobs took, and what others have to do (no torch here)."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from colpipe.jobs.processor import cores, training_rate
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.schedule import START, is_alone, threads_of

PATIENCE = 10  # seconds between two looks at what has finished
DOUBT = (
    60  # seconds of work in as many seconds, taken as done before a run: its first, short jobs say little of its speed
)


class Estimate:
    """Seconds that jobs will take one after the other, and a run at the speed that it has had so far.

    A run's work is counted in seconds of the whole machine: two jobs that take half of it each may run side by side.

    Earlier jobs of this study count, those of this run too; for rules that it has not run yet, a guess from the work that
    they have to do; where there is none, the jobs of other studies, whose models may be a thousand times smaller; or it is
    unknown.

    Args:
        results: `results/<study>/`.
        guess: rule → seconds of a job without its start.
        shares: rule → share of the machine that a job of it takes; all of it, if nothing is said.
    """

    def __init__(
        self,
        results: Path,
        guess: Callable[[], Mapping[str, float]] = dict,
        shares: Callable[[], Mapping[str, float]] = dict,
    ):
        self._results, self._guess, self._shares = results, guess, shares
        self._guessed: Mapping[str, float] | None = None
        self._share: Mapping[str, float] | None = None
        self._known: dict[Path, tuple[str, float] | None] = {}
        self._own: dict[str, float] = {}
        self._others: dict[str, float] = {}
        self._last_look = -float("inf")
        self._jobs, self._at, self._speed = -1.0, 0.0, 1.0

    def is_unknown(self, rule: str) -> bool:
        """Whether models work in the jobs of a rule, none of them has run yet, and nobody can guess."""
        row = RULES.get(rule)
        return bool(row and row.kind != "light" and self._known_of(rule) is None)

    def of_job(self, rule: str) -> float:
        """Seconds of a job of a rule; those of which nothing is known take nothing but their start."""
        return START + (self._known_of(rule) or 0.0) if rule in RULES else 0.0  # else a target

    def _known_of(self, rule: str) -> float | None:
        stage = RULES[rule].stage or rule
        if stage in self._own:
            return self._own[stage]
        if self._guessed is None:
            self._guessed = self._guess()
        return self._guessed.get(rule, self._others.get(stage))

    def of_run(self, remaining: Mapping[str, float], completed: Mapping[str, float], elapsed: float) -> float | None:
        """Seconds left; None: unknown.

        Args:
            remaining, completed: rule → jobs.
            elapsed: seconds since the run began.
        """
        if any(self.is_unknown(rule) for rule, jobs in remaining.items() if jobs):
            return None
        if (jobs := sum(completed.values())) != self._jobs:
            done = self._work(completed)
            self._speed = (done + DOUBT) / (elapsed + DOUBT) if elapsed else 1.0
            self._jobs, self._at = jobs, elapsed
        seconds = self._work(remaining) / self._speed - (elapsed - self._at)
        if seconds <= 0 and any(remaining.values()):  # longer than what was known of
            return None
        return max(0.0, seconds)

    def _work(self, jobs: Mapping[str, float]) -> float:
        """Of so many jobs of each rule, seconds of the whole machine."""
        if self._share is None:
            self._share = self._shares()
        return sum(count * self.of_job(rule) * self._share.get(rule, 1.0) for rule, count in jobs.items())

    def look(self) -> None:
        """Read what has finished since the last look."""
        if time.monotonic() - self._last_look < PATIENCE:
            return
        self._last_look = time.monotonic()
        others: dict[str, list[float]] = defaultdict(list)
        own: dict[str, list[float]] = defaultdict(list)
        for path in (*self._results.parent.glob("*/**/run.json"), *Path("resources").glob("*/*/run.json")):
            if path not in self._known:
                self._known[path] = _read_seconds(path)
            if known := self._known[path]:
                (own if path.is_relative_to(self._results) else others)[known[0]].append(known[1])
        if own.keys() != self._own.keys():
            self._guessed = None  # data and models that are there now have known sizes
        self._own, self._others = ({stage: fmean(each) for stage, each in found.items()} for found in (own, others))


def _read_seconds(path: Path) -> tuple[str, float] | None:
    """(stage, seconds) of a result; None of one that is being replaced."""
    with suppress(OSError, ValueError, KeyError):
        stage = json.loads(path.with_name("manifest.json").read_text())["stage"]
        return stage, json.loads(path.read_text())["seconds"]
    return None


def seconds_by_work(plan: Plan) -> dict[str, float]:
    """Rule → seconds of a job in which models work, on this machine's processor, the mean of what is not done: its FLOPs,
    at the rate that a core was measured at."""
    seconds, count = defaultdict[str, list[float]](list), cores()
    for job, work in plan.work_by_job():
        if RULES[job.rule].work and not (Path(job.folder) / "manifest.json").exists():
            threads = threads_of(job.rule, count, is_alone(plan.study, job.rule, job.wildcards))
            flops = work.flops_by_precision
            seconds[job.rule].append(sum(of / (threads * training_rate(name)) for name, of in flops.items() if of))
    return {rule: fmean(each) for rule, each in seconds.items()}


def shares_of_cores(plan: Plan) -> dict[str, float]:
    """Rule → share of this machine's cores that a job of it gets, the mean over all of a study's."""
    shares, count = defaultdict[str, list[float]](list), cores()
    for job in plan.jobs():
        shares[job.rule].append(threads_of(job.rule, count, is_alone(plan.study, job.rule, job.wildcards)) / count)
    return {rule: fmean(each) for rule, each in shares.items()}
