"""How many completions a distillation samples: no more than its steps use (no torch here)."""

from dataclasses import dataclass
from math import ceil

from colpipe.config.stages import Distill


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of a training: all of the same size but the last, which is as large as the steps that are left need."""

    rows: int
    """that are learnt from, each completion counted in each pass"""
    passes: int
    """over each rollout"""
    size: int
    """prompts of a rollout, as the study says"""
    batch_size: int
    """rows of an update; sizes are multiples of it"""

    @property
    def count(self) -> int:
        return -(-self.rows // (self.size * self.passes))

    def size_of(self, number: int) -> int:
        """Prompts of a rollout, the first of which is 0."""
        left = self.rows - number * self.size * self.passes
        return min(self.size, self.batch_size * -(-left // (self.batch_size * self.passes)))

    @property
    def prompts(self) -> int:
        """Completions of all of them."""
        return (self.count - 1) * self.size + self.size_of(self.count - 1)


def rollouts_of(settings: Distill, prompts: float) -> Rollouts:
    """Those of `minillm` and `on_policy` on so many prompts."""
    size = settings.rollout.size
    passes = settings.rollout.epochs or (4 if settings.objective == "minillm" else 1)
    rows = settings.steps * settings.batch_size if settings.steps else None
    if rows is None:
        rows = ceil(settings.epochs * prompts / size) * size * passes
    return Rollouts(rows, passes, size, settings.batch_size)
