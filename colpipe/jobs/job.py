"""One run of one stage: its folders, its log, its in-step state, and how its result is published (no torch here)."""

import contextlib
import fcntl
import json
import logging
import math
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from colpipe.config.parts import Runtime
from colpipe.errors import ColpipeError, failure_text
from colpipe.hashing import key_of, ordered_key_of
from colpipe.jobs import artifacts
from colpipe.jobs.code import code_of
from colpipe.jobs.usage import FOLDER, Ledger

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
METRICS = "metrics.jsonl"  # of a run, in its state folder and beside its result
EVENTS = "events.jsonl"  # of all attempts, in the work folder
RECORD = "made_from.json"  # in the work folder of a job whose files lie beside others', without a manifest
TOLD = "COLPIPE_TELLS_WHAT_IS_DONE"  # in the environment where whoever runs the jobs says when each is done
STOPPED = 143  # exit status of a job that saved its state when it was told to stop; not 0, or it would count as done
PACKAGES = ("colpipe", "torch", "transformers", "trl", "tokenizers", "datasets")  # those that can change a result
SettingsT = TypeVar("SettingsT", bound=BaseModel)
EventKind = Literal["failed", "stopped", "resumed", "state not used", "replaced by hand", "done"]


@dataclass(frozen=True)
class JobSpec(Generic[SettingsT]):
    """What a job is to do.

    Attributes:
        stage: what runs, as logs and manifests name it.
        output: folder of the result; published whole, manifest last.
        work: folder of in-step state, lasting log and metrics.
        settings, runtime: validated settings.
        parents: name → folder of each input.
        seed: of every random choice.
        log: file for the log of this run, beside the lasting one.
        minutes: to save and end before so many are over.
        module: whose code it runs; the stage's where it is left out.
        asked: the settings as they were asked for, a JSON value without the defaults that `settings` fills in.
    """

    stage: str
    output: Path
    work: Path
    settings: SettingsT
    runtime: Runtime
    parents: Mapping[str, Path]
    seed: int
    log: Path | None = None
    minutes: float | None = None
    module: str = ""
    asked: Any = None


class Job(Generic[SettingsT]):
    """A stage at work, as a context manager: it begins when it is entered, and tells and releases when it is left.

    Attributes:
        stage, output, work, settings, runtime, parents, seed: of its spec.
        staging: empty folder to write the result into.
        state: folder for in-step state. Its name is the key of settings, parents and code, so that a state of another
            run is never resumed.
        manifest: what is recorded of the result so far.
        ledger: the account of what it uses.
        is_main: whether this process speaks and publishes, of several.
    """

    def __init__(self, spec: JobSpec[SettingsT]):
        self.spec = spec
        self.stage, self.output, self.work, self.seed = spec.stage, spec.output, spec.work, spec.seed
        self.settings, self.runtime, self.parents = spec.settings, spec.runtime, dict(spec.parents)
        self.staging = spec.work / "staging"
        self.is_main = os.environ.get("RANK", "0") == "0"
        self._started = time.monotonic()
        self._seconds = None if spec.minutes is None else 60 * spec.minutes
        self._last_check, self._longest_step = self._started, 0.0
        self._told_to_stop = False
        self._unlocked = ""
        self._warnings = logging.Handler()
        self._warnings.emit = lambda record: self.say(record.getMessage())  # type: ignore[method-assign]
        self._open_files: list[Any] = []
        self._logs: list[Any] = []

    def __enter__(self) -> "Job[SettingsT]":
        """Begin: lock the work folder, open the logs, hash the inputs, and listen for signals.

        Raises:
            ColpipeError: another process works there, or an input has no files.
        """
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Tell of an error, and release the work folder."""
        if isinstance(error, Exception):
            self.event("failed", failure_text(error, self.output))
        self.close()

    def _open(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        if self.is_main:
            self._lock()
            self._open_logs()
        settings = self.settings.model_dump(mode="json")
        asked = settings if self.spec.asked is None else self.spec.asked
        self.manifest: dict[str, Any] = {
            "stage": self.stage,
            "settings": settings,
            "parents": self._fingerprint_parents(),
            "seed": self.seed,
            "versions": {name: _version(name) for name in PACKAGES},
            "made_from": made_from(self.spec.module or f"colpipe.stages.{self.stage}", asked),
        }
        self.state = self.work / f"state-{key_of(self.manifest)}"
        self.ledger = Ledger(self.state / FOLDER)
        if self.is_main:
            if self._unlocked:
                self.say(self._unlocked)
            self._clear_staging()
        logging.getLogger("colpipe").addHandler(self._warnings)  # what libraries of ours warn of is in the log as well
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._request_stop)

    def _lock(self) -> None:
        lock = open(self.work / "lock", "w")
        self._open_files.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ColpipeError(f"{self.work}: another process is working there; wait for it or stop it") from None
        except OSError as error:
            self._unlocked = (
                f"the file system has no locks ({error.strerror}): no second job may be started here by hand"
            )

    def _open_logs(self) -> None:
        self._logs.append(open(self.work / "log.txt", "a", buffering=1))  # survives retries
        if self.spec.log:
            self.spec.log.parent.mkdir(parents=True, exist_ok=True)
            self._logs.append(open(self.spec.log, "a", buffering=1))
        self._open_files += self._logs

    def _fingerprint_parents(self) -> dict[str, str]:
        fingerprints = {name: artifacts.fingerprint(folder) for name, folder in self.parents.items()}
        if missing := [name for name, fingerprint in fingerprints.items() if fingerprint == artifacts.MISSING]:
            raise ColpipeError(f"{self.parents[missing[0]]}: holds no files; run the stage that makes it first")
        for folder in self.parents.values():
            if artifacts.was_replaced(folder):
                text = f"{folder} is not what its manifest says: taken as it is, replaced by hand"
                self.event("replaced by hand", text)
        return fingerprints

    def _clear_staging(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        for other in self.work.glob("state-*"):
            if other != self.state:
                self.event("state not used", f"set aside {other}: a state of other settings, parents or code")

    def _request_stop(self, *_: object) -> None:
        """The signal handler. It may interrupt a line that is being written: Python's files cannot be entered again then."""
        if not self._told_to_stop:
            os.write(2, f"{self.stage} {self.output}: told to stop: saving at the next step\n".encode())
        self._told_to_stop = True

    def should_stop(self) -> bool:
        """Whether to save and end; asked between steps.

        Told to, or the time is nearly over: a twentieth of it is left, or two minutes of more, or two of the longest steps.
        """
        self.ledger.keep(now=False)
        now = time.monotonic()
        self._longest_step, self._last_check = max(self._longest_step, now - self._last_check), now
        if self._told_to_stop or self._seconds is None:
            return self._told_to_stop
        return self._started + self._seconds - now < max(min(120, self._seconds / 20), 2 * self._longest_step)

    def stop(self) -> None:
        """End the job after its state was saved."""
        self.ledger.keep()
        why = "told to stop"
        if self._seconds and not self._told_to_stop:
            why = f"the {self._seconds / 60:g} minutes are nearly over"
        self.event("stopped", f"{why}: state saved; the same command goes on from here")
        raise SystemExit(STOPPED)

    def say(self, text: str, console: bool = True) -> None:
        """One line to the console and to the logs; of several processes, the main one speaks."""
        if not self.is_main:
            return
        if console:
            print(f"{self.stage} {self.output}: {text}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):  # a full disk must be told of, and cannot be told there
            for log in self._logs:
                print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=log)

    def event(self, kind: EventKind, text: str) -> None:
        """Say something that the report tells of this job's attempts, and keep it as a record beside the log."""
        self.say(text, console=not (kind == "done" and os.environ.get(TOLD)))
        if self.is_main:
            record = {"when": time.strftime("%Y-%m-%d %H:%M:%S"), "kind": kind, "text": text}
            with contextlib.suppress(OSError), open(self.work / EVENTS, "a") as file:
                file.write("\n" + json.dumps(record))  # the line break first, as in `measure`

    def measure(self, **values: Any) -> None:
        """Append one record to the run's metrics; a step that is repeated after a resume replaces its first record.

        What is not finite is null there: JSON has no such number.
        """
        if not self.is_main:
            return
        self.state.mkdir(exist_ok=True)
        finite = {
            name: None if value in (math.inf, -math.inf) or value != value else value for name, value in values.items()
        }
        with open(self.state / METRICS, "a") as file:
            file.write("\n" + json.dumps(finite))  # the line break first: a record cut short by a kill spoils no other

    def publish(self, **details: Any) -> None:
        """Make the staged files the result; `details` go to the manifest."""
        used = self._finish_metrics(self.staging)
        run = {
            "stage": self.stage,
            **used,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(used["started"])),
            "host": platform.node(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
        with _undisturbed():
            aside = artifacts.publish(self.staging, self.output, {**self.manifest, **details}, run)
        if aside:
            self.say(f"files that no result has were set aside: {', '.join(aside)}")
        for state in self.work.glob("state-*"):
            shutil.rmtree(state)
        self.event("done", f"done in {used['seconds']:.0f} s")

    def clear_files(self) -> None:
        """Empty an output that has no manifest: files of the last time go, others are somebody's and are set aside."""
        if not self.output.exists():
            return
        try:
            known = json.loads((self.work / RECORD).read_text())["files"]
        except (OSError, ValueError):
            known = {}
        if aside := artifacts.set_aside(self.output, known):
            self.say(f"files that were not made here were set aside: {', '.join(aside)}")
        for path in artifacts.content_files(self.output):
            path.unlink()

    def publish_files(self) -> None:
        """Move the staged files one by one into the output folder, beside what is already there. What they were made of is
        recorded in the work folder: the output has no manifest."""
        self.output.mkdir(parents=True, exist_ok=True)
        staged = artifacts.content_files(self.staging)
        with _undisturbed():
            (self.work / RECORD).unlink(missing_ok=True)
            for path in staged:
                os.replace(path, self.output / path.name)
            files = artifacts.hashes_of(
                {path.name: self.output / path.name for path in staged}, self.work / artifacts.HASHES
            )
            artifacts.write_json(self.work / RECORD, {**self.manifest, "files": files})
        self.event("done", f"done in {self._finish_metrics()['seconds']:.0f} s")

    def _finish_metrics(self, *folders: Path) -> dict:
        """Write the metrics, closed by what the job used, to the work folder and to `folders`; give what it used."""
        used = self.ledger.total()
        records = [*self.metrics(), {"split": "job", **used}]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        for folder in (self.work, *folders):
            (folder / METRICS).write_text(lines)
        return used

    def metrics(self) -> list[dict]:
        """What was measured so far, each step once."""
        try:
            lines = (self.state / METRICS).read_text().splitlines()
        except FileNotFoundError:
            return []
        records: dict[tuple, dict] = {}
        for line in lines:
            with contextlib.suppress(ValueError):  # empty, or cut short by a kill and written again after the resume
                record = json.loads(line)
                records[(record.get("phase"), record.get("step"), record.get("split"))] = record
        return list(records.values())

    def parents_of(self, name: str) -> dict[str, Path]:
        """NAME → FOLDER of an input that takes several."""
        return {key[len(name) + 1 :]: folder for key, folder in self.parents.items() if key.startswith(f"{name}.")}

    def close(self) -> None:
        """Release the work folder."""
        if self.is_main:
            if self.state.exists():  # it goes on another time
                self.ledger.keep()
            shutil.rmtree(self.staging, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        logging.getLogger("colpipe").removeHandler(self._warnings)
        for file in self._open_files:
            with contextlib.suppress(OSError):  # what a full disk did not take
                file.close()


def clock(seconds: float) -> str:
    """3:05, or 1:03:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait: between two results a folder holds neither."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def made_from(module: str, asked: Any) -> dict[str, str]:
    """What a manifest says of a job beside its parents and its seed, to be compared with what a study asks for.

    Args:
        module: whose code it runs.
        asked: its settings as they were asked for, a JSON value.
    """
    return {"settings": ordered_key_of(asked), "code": code_of(module, asked)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
