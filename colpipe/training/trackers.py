"""Curves of trainings in experiment trackers (`runtime.report_to`), drawn by transformers' own callbacks.

Begun here is the run that a callback reports to: a training that was cut off goes on with its own, and one that is made
again has another. What is computed does not know of it. Credentials are the trackers' business, in the environment.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import Trainer, TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

from colpipe.config.trackers import Tracker
from colpipe.errors import ColpipeError, first_line
from colpipe.jobs.artifacts import write_json
from colpipe.jobs.job import Job

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
KEPT = "tracked.json"  # beside the in-step states: which runs the training goes on with


@dataclass
class Run:
    """A training, as trackers know it."""

    project: str
    """the study"""
    name: str
    """the study and the path of the job in it"""
    key: str
    """tells apart the trainings of this name: when it first began, and a random part"""
    mlflow: str | None = None
    """id that MLflow gave it"""


@contextmanager
def reported(job: Job, trainer: Trainer, step: int, label: str = "") -> Iterator[None]:
    """Report what a trainer logs to the trackers of `runtime.report_to`; of several processes, the first one does.

    Args:
        step: that the training goes on from, 0 if it begins.
        label: names it where one job has several.

    Raises:
        ColpipeError: a tracker cannot begin a run; credentials in what it says are left out.
    """
    with ExitStack() as runs:
        if job.is_main and job.runtime.report_to:
            home = Path(trainer.args.output_dir)
            run = _run_of(job, home, label.strip(" :"))
            trainer.args.project, trainer.args.run_name = run.project, f"{run.name} {run.key}"  # what trackio looks at
            for tracker in dict.fromkeys(job.runtime.report_to):
                trainer.add_callback(_begin(tracker, job, run, step, runs))
            home.mkdir(parents=True, exist_ok=True)
            write_json(home / KEPT, asdict(run))
        yield


def _run_of(job: Job, home: Path, label: str) -> Run:
    """The run that this training has begun before it was cut off, or a new one."""
    try:
        return Run(**json.loads((home / KEPT).read_text()))
    except (OSError, ValueError, TypeError):
        key = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    parts = job.output.parts
    where = parts[parts.index("results") + 1 :] if "results" in parts else parts[-1:]
    return Run(where[0], "/".join([*where, *([label] if label else [])]), key)


def _begin(tracker: Tracker, job: Job, run: Run, step: int, runs: ExitStack) -> TrainerCallback:
    begin: dict[Tracker, Callable[..., TrainerCallback]] = {
        "tensorboard": _tensorboard,
        "wandb": _wandb,
        "trackio": lambda *_: TrackioCallback(),
        "mlflow": _mlflow,
    }
    try:
        return begin[tracker](job, run, step, runs)
    except Exception as error:
        said = re.sub(r"//[^/@\s]+@", "//…@", first_line(error))
        raise ColpipeError(
            f"runtime.report_to: {tracker} cannot begin a run ({said}); see to it, or leave {tracker} out"
        ) from None


def _tensorboard(job: Job, run: Run, step: int, runs: ExitStack) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter

    # What a killed attempt wrote of later steps is not shown.
    writer = SummaryWriter(job.work / "tensorboard" / run.key, purge_step=step + 1 if step else 0)
    runs.callback(writer.close)
    return TensorBoardCallback(writer)


def _wandb(job: Job, run: Run, step: int, runs: ExitStack) -> TrainerCallback:
    import wandb

    wandb.init(
        project=os.environ.get("WANDB_PROJECT", run.project),
        name=run.name,
        id=run.key,
        resume="allow",
        dir=os.environ.get("WANDB_DIR", job.work),
    )

    def end(kind: type[BaseException] | None, *_: object) -> None:
        wandb.finish(exit_code=int(kind is not None))

    runs.push(end)
    return WandbCallback()


def _mlflow(job: Job, run: Run, step: int, runs: ExitStack) -> TrainerCallback:
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project))
    run.mlflow = mlflow.start_run(run_id=run.mlflow, run_name=run.name).info.run_id

    def end(kind: type[BaseException] | None, *_: object) -> None:
        mlflow.end_run("FINISHED" if kind is None else "FAILED")

    runs.push(end)
    return MLflowCallback()
