"""Time left of a run, from what earlier jobs took: a column of the progress bars of `--logger rich` (no torch here)."""

import json
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from colpipe.jobs.job import clock
from colpipe.pipeline.rules import RULES
from colpipe.pipeline.schedule import START

UNKNOWN = Text("time left unknown", style="dim")
PATIENCE = 10  # seconds between two looks at what has finished


class TimeLeft(ProgressColumn):
    """Seconds that the remaining jobs of a rule will take one after the other, and all together at this run's speed.

    Earlier jobs of this study count, those of this run too; for rules that it has not run yet, those of other studies. Where
    there are none, it is unknown.
    """

    max_refresh = 0.5

    def __init__(self, progress: Progress, results: Path):
        super().__init__()
        self._progress, self._results = progress, results
        self._known: dict[Path, tuple[str, float] | None] = {}
        self._seconds: dict[str, float] = {}
        self._last_look = -float("inf")
        self._jobs, self._at, self._speed = -1.0, 0.0, 1.0

    def render(self, task: Task) -> Text:
        """The time left of one bar: a rule, or `Total Progress`."""
        self._look()
        rules = {_rule(bar): bar for bar in self._progress.tasks}
        total = rules.pop("Total_Progress", None)
        left = {rule: bar.remaining * self._expected(rule) for rule, bar in rules.items()}
        own = task is not total and (total is None or task.id != total.id)
        if any(self._is_unknown(rule, bar) for rule, bar in rules.items() if not own or bar.id == task.id):
            return UNKNOWN
        if own:
            return Text(f"{clock(left[_rule(task)])} of work left", style="dim")
        elapsed = total.elapsed or 0.0
        if total.completed != self._jobs:
            done = sum(bar.completed * self._expected(rule) for rule, bar in rules.items())
            self._speed = done / elapsed if done and elapsed else 1.0
            self._jobs, self._at = total.completed, elapsed
        seconds = sum(left.values()) / self._speed - (elapsed - self._at)
        if seconds <= 0 and total.remaining:  # longer than what was known of
            return UNKNOWN
        return Text(f"about {clock(max(0.0, seconds))} left")

    def _is_unknown(self, rule: str, bar: Task) -> bool:
        """Whether a rule has jobs left in which models work, and none of it has run yet."""
        row = RULES.get(rule)
        return bool(row and row.kind != "light" and bar.remaining and (row.stage or rule) not in self._seconds)

    def _expected(self, rule: str) -> float:
        """Seconds of a job of a rule; those that none has run yet take nothing but their start."""
        row = RULES.get(rule)
        return START + self._seconds.get(row.stage or rule, 0.0) if row else 0.0  # else a target

    def _look(self) -> None:
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
        self._seconds = {stage: sum(seconds) / len(seconds) for stage, seconds in {**others, **own}.items()}


def _read_seconds(path: Path) -> tuple[str, float] | None:
    """(stage, seconds) of a result; None of one that is being replaced."""
    with suppress(OSError, ValueError, KeyError):
        stage = json.loads(path.with_name("manifest.json").read_text())["stage"]
        return stage, json.loads(path.read_text())["seconds"]
    return None


def _rule(bar: Task) -> str:
    """The rule of a bar; the plugin writes its name with spaces, and in colours."""
    return Text.from_markup(bar.description).plain.removeprefix("✗ ").removesuffix(" (failed)").replace(" ", "_")
