"""Experiment trackers that trainings can report to, by the names of their packages (no torch here)."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


def require_trackers(names: Sequence[Tracker]) -> None:
    """Refuse trackers whose packages this Python lacks.

    Raises:
        ColpipeError: names them, and the command that installs them.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        said = ", ".join(missing)
        raise ColpipeError(
            f"runtime.report_to: {said}: not installed; pip install {' '.join(missing)}, or leave {said} out"
        )
