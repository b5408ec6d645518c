"""The time left as a column of the progress bars of `--logger rich` (no torch here)."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from colpipe.jobs.job import clock
from colpipe.pipeline.time_left import Estimate

UNKNOWN = Text("time left unknown", style="dim")


class TimeLeft(ProgressColumn):
    """Seconds that the remaining jobs of a rule will take one after the other, and all together at this run's speed."""

    max_refresh = 0.5

    def __init__(
        self,
        progress: Progress,
        results: Path,
        guess: Callable[[], Mapping[str, float]] = dict,
        shares: Callable[[], Mapping[str, float]] = dict,
    ):
        super().__init__()
        self._progress, self.estimate = progress, Estimate(results, guess, shares)

    def render(self, task: Task) -> Text:
        """The time left of one bar: a rule, or `Total Progress`."""
        self.estimate.look()
        rules = {_rule(bar): bar for bar in self._progress.tasks}
        total = rules.pop("Total_Progress", None)
        if task is not total and (total is None or task.id != total.id):
            rule = _rule(task)
            if task.remaining and self.estimate.is_unknown(rule):
                return UNKNOWN
            return Text(f"{clock(task.remaining * self.estimate.of_job(rule))} of work left", style="dim")
        remaining = {rule: bar.remaining for rule, bar in rules.items()}
        completed = {rule: bar.completed for rule, bar in rules.items()}
        seconds = self.estimate.of_run(remaining, completed, total.elapsed or 0.0)
        return UNKNOWN if seconds is None else Text(f"about {clock(seconds)} left")


def _rule(bar: Task) -> str:
    """The rule of a bar; the plugin writes its name with spaces, and in colours."""
    return Text.from_markup(bar.description).plain.removeprefix("✗ ").removesuffix(" (failed)").replace(" ", "_")
