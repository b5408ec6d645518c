"""Fitted cuts of a study: the text, and a subset of a model that is fitted to the model on it."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from colpipe.config.constants import ORDER_ROWS
from colpipe.config.needs import JobRuntime
from colpipe.config.stages import Fit
from colpipe.data.tokens import Blocks
from colpipe.hashing import key_of
from colpipe.hf.models import load_model
from colpipe.jobs import artifacts
from colpipe.jobs.job import Job, made_from
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.fit import fit
from colpipe.learngene.streams import Streams, gather
from colpipe.learngene.weights import Weights

WHOLE = "whole"  # in a folder of streams that several jobs share: all of them are written
POLL_SECONDS = 0.5  # between looks at whether another job has gathered them
# What a manifest keeps of a fitted assembly's details.
FIT_DETAILS = ("ridge", "tokens", "precision", "untouched", "fitted", "rank_deficient")


def fit_to(job: Job, source: Path, start: Assembly, settings: Fit, device: str | torch.device) -> Assembly:
    """A subset with what its layers write fitted to the model that it is a subset of, on the text of the job's `corpus`.

    A job that is told to stop does so at the next batch, and fits anew when it is started again.

    Raises:
        ColpipeError: as in `fit`; the text is shorter than `tokens`, or than a block.
    """
    blocks = Blocks(job.parents["corpus"], "train", settings.max_length, settings.tokens)
    batches = blocks.stacked().split(ORDER_ROWS)
    with _streams(job, source, batches, settings, torch.device(device)) as streams:
        assembly = fit(start, streams, settings.ridge)
    tokens, told = assembly.details["tokens"], _told(assembly.details)
    job.say(f"fitted on {tokens:,} tokens, ridge {settings.ridge:g}: {told}")
    return assembly


@contextmanager
def _streams(
    job: Job, source: Path, batches: Sequence[Tensor], settings: Fit, device: torch.device
) -> Iterator[Streams]:
    """The source's residual streams: its own, or those that jobs of a study share, gathered by the first that needs them."""
    scratch = job.state / "streams"
    shutil.rmtree(scratch, ignore_errors=True)  # of a job that was killed

    def gathered(shared: Path | None = None) -> Streams:
        model = load_model(source).to(device).eval()
        return gather(model, batches, scratch, lambda: _stop_if_told(job), shared, settings.precision)

    folder = _shared_folder(job, source, settings)
    if folder and _gather_once(job, folder, gathered):
        yield Streams(
            Weights(source), list(batches), device, scratch, lambda: _stop_if_told(job), folder, settings.precision
        )
    else:
        with gathered() as streams:
            yield streams


def _shared_folder(job: Job, source: Path, settings: Fit) -> Path | None:
    """Where jobs of the study share streams, by what they are of and the code that gathers them; None: they do not."""
    if not isinstance(job.runtime, JobRuntime) or job.runtime.streams is None:
        return None
    models = [artifacts.fingerprint(folder) for folder in (source, job.parents["corpus"])]
    code = made_from("colpipe.learngene.streams", None)["code"]
    return job.runtime.streams / key_of([*models, settings.tokens, settings.max_length, settings.precision, code])


def _gather_once(job: Job, folder: Path, gathered: Callable[[Path], Streams]) -> bool:
    """Gather where no other job has; while one does, wait. False where the file system has no locks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _stop_if_told(job)
                time.sleep(POLL_SECONDS)
            except OSError:
                return False
        if (folder / WHOLE).exists():
            job.say("another job has gathered the streams of its source")
        else:
            shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
            folder.mkdir()
            gathered(folder)
            (folder / WHOLE).touch()
    return True


def _stop_if_told(job: Job) -> None:
    if job.should_stop():
        job.say("nothing of a fit is kept: it is done anew")
        job.stop()


def _told(details: dict) -> str:
    """The relative error that is left of what the last layer should write, before its fit and after it."""
    if not details["fitted"]:
        return "nothing was cut away"
    before, after = (details["fitted"][-1][when] for when in ("before", "after"))
    return f"{len(details['fitted'])} times; relative error of the last stream {before} before its fit, {after} after"
