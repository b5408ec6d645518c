"""One run of one stage: its folders, its log, its in-step state, and how its result is published (no torch here).

A stage module reads top to bottom: `run_stage` parses its arguments, its body loads, makes one call and publishes.
"""

import argparse
import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from colpipe import checkpoint
from colpipe.errors import ColpipeError, advice_on
from colpipe.ledger import FOLDER, Ledger
from colpipe.settings import Runtime

METRICS = "metrics.jsonl"  # of a run, in its state folder and beside its result
STOPPED = 143  # exit status of a job that saved its state when it was told to stop; not 0, or it would count as done
PACKAGES = ("colpipe", "torch", "transformers", "trl", "tokenizers", "datasets")  # those that can change a result


class Job:
    """A stage at work.

    Attributes:
        output: folder of the result; published whole, manifest last.
        staging: empty folder to write the result into.
        state: folder for in-step state. Its name is the key of settings, parents and code, so that a state of another
            run is never resumed.
        settings, runtime: validated settings.
        parents: name → folder of each input.
    """

    def __init__(
        self,
        stage: str,
        output: Path,
        work: Path,
        settings: BaseModel,
        runtime: Runtime,
        parents: Mapping[str, Path],
        seed: int,
        log: Path | None = None,
        minutes: float | None = None,
    ):
        self.stage, self.output, self.work, self.seed = stage, output, work, seed
        self.settings, self.runtime, self.parents = settings, runtime, dict(parents)
        self._begun = time.monotonic()
        self._seconds = None if minutes is None else 60 * minutes
        self._asked, self._longest = self._begun, 0.0
        self._told_to_stop = False
        self.is_main = os.environ.get("RANK", "0") == "0"
        work.mkdir(parents=True, exist_ok=True)
        self._logs = []
        if self.is_main:
            self._lock = self._take_lock()
            self._logs.append(open(work / "log.txt", "a", buffering=1))  # survives retries
            if log:
                log.parent.mkdir(parents=True, exist_ok=True)
                self._logs.append(open(log, "a", buffering=1))
        self.manifest = {
            "stage": stage,
            "settings": settings.model_dump(mode="json"),
            "parents": {name: checkpoint.fingerprint(folder) for name, folder in self.parents.items()},
            "seed": seed,
            "versions": {name: _version(name) for name in PACKAGES},
        }
        if gone := [name for name, print_ in self.manifest["parents"].items() if print_ == checkpoint.MISSING]:
            raise ColpipeError(f"{self.parents[gone[0]]}: holds no files; run the stage that makes it first")
        for folder in self.parents.values():
            if checkpoint.was_replaced(folder):
                self.say(f"{folder} is not what its manifest says: taken as it is, replaced by hand")
        code = checkpoint.code_version(f"colpipe.stages.{stage}")
        self.state = work / f"state-{checkpoint.key_of([self.manifest, code])}"
        self.ledger = Ledger(self.state / FOLDER)
        self.staging = work / "staging"
        if self.is_main:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
            for other in work.glob("state-*"):
                if other != self.state:
                    self.say(f"set aside {other}: a state of other settings, parents or code")
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._request_stop)

    def _take_lock(self) -> Any:
        lock = open(self.work / "lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ColpipeError(f"{self.work}: another process is working there; wait for it or stop it") from None
        return lock

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
        self._longest, self._asked = max(self._longest, now - self._asked), now
        if self._told_to_stop or self._seconds is None:
            return self._told_to_stop
        return self._begun + self._seconds - now < max(min(120, self._seconds / 20), 2 * self._longest)

    def stop(self) -> None:
        """End the job after its state was saved."""
        self.ledger.keep()
        late = self._seconds and not self._told_to_stop
        why = f"the {self._seconds / 60:g} minutes are nearly over" if late else "told to stop"
        self.say(f"{why}: state saved; the same command goes on from here")
        raise SystemExit(STOPPED)

    def say(self, text: str) -> None:
        """One line to the console and to the logs; of several processes, the main one speaks."""
        if not self.is_main:
            return
        line = f"{self.stage} {self.output}: {text}"
        print(line, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):  # a full disk must be told of, and cannot be told there
            for log in self._logs:
                print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=log)

    def measure(self, **values: Any) -> None:
        """Append one record to the run's metrics; a step that is repeated after a resume replaces its first record."""
        if not self.is_main:
            return
        self.state.mkdir(exist_ok=True)
        with open(self.state / METRICS, "a") as file:
            file.write("\n" + json.dumps(values))  # the line break first: a record cut short by a kill spoils no other

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
        checkpoint.publish(self.staging, self.output, {**self.manifest, **details}, run)
        for state in self.work.glob("state-*"):
            shutil.rmtree(state)
        self.say(f"done in {used['seconds']:.0f} s")

    def publish_files(self) -> None:
        """Move the staged files one by one into the output folder, beside what is already there; no manifest."""
        self.output.mkdir(parents=True, exist_ok=True)
        for path in checkpoint.content_files(self.staging):
            os.replace(path, self.output / path.name)
        self.say(f"done in {self._finish_metrics()['seconds']:.0f} s")

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
            for file in (*self._logs, self._lock):
                with contextlib.suppress(OSError):  # what a full disk did not take
                    file.close()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def run_stage(
    stage: str,
    description: str,
    body: Callable[[Job], None],
    *,
    inputs: Mapping[str, str],
    settings: type[BaseModel],
    optional: tuple[str, ...] = (),
) -> None:
    """Command line of a stage: parse, run `body`, turn bad input into one line and status 1.

    Args:
        stage: name of the module in `colpipe/stages/`.
        description: its docstring, shown by `--help`.
        body: does the work and publishes.
        inputs: parent name → help; each becomes `--<name> FOLDER`. A name ending in `*` takes any number of
            `NAME=FOLDER`, which become parents `<name>.NAME`.
        settings: model that validates `--settings`.
        optional: names of inputs that may be left out.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m colpipe.stages.{stage}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, text in inputs.items():
        if name.endswith("*"):
            parser.add_argument(f"--{name[:-1]}", nargs="*", default=[], metavar="NAME=FOLDER", help=text)
        else:
            parser.add_argument(f"--{name}", type=Path, required=name not in optional, metavar="FOLDER", help=text)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the result")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="in-step state and logs (default: <output>.work)")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="settings: JSON, or a .json or .yaml file")
    parser.add_argument("--runtime", default="{}", metavar="JSON", help="runtime settings; they change no result")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default: 0)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="log of this run, beside the lasting one in --work")
    parser.add_argument("--minutes", type=float, metavar="N", help="save and exit with status 143 before N are over")
    arguments = vars(parser.parse_args())

    job = None
    try:
        parents = {}
        for name in inputs:
            given = arguments[name.rstrip("*").replace("-", "_")]
            if name.endswith("*"):
                for pair in given:
                    label, _, folder = pair.partition("=")
                    parents[f"{name[:-1]}.{label}"] = Path(folder)
            elif given is not None:
                parents[name] = given
        output = arguments["output"]
        job = Job(
            stage,
            output,
            arguments["work"] or output.with_name(output.name + ".work"),
            _validated(arguments["settings"], settings, "--settings"),
            _validated(arguments["runtime"], Runtime, "--runtime"),
            parents,
            arguments["seed"],
            arguments["log"],
            arguments["minutes"],
        )
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from colpipe.device import join_processes

            join_processes(job.runtime.device)
        body(job)
    except ColpipeError as error:
        _fail(job, stage, str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the last saved state stays
    except Exception as error:
        if advice := advice_on(error, arguments["output"]):
            _fail(job, stage, advice)
        if job:
            job.say(traceback.format_exc())
        else:
            traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        if job:
            job.close()


def _fail(job: Job | None, stage: str, message: str) -> None:
    if job:
        job.say(f"error: {message}")
    else:
        print(f"{stage}: error: {message}", file=sys.stderr)
    raise SystemExit(1) from None


def _validated(text: str, model: type[BaseModel], where: str) -> BaseModel:
    """Settings from JSON text or a file."""
    try:
        from_file = text.endswith((".json", ".yaml", ".yml"))
        value = yaml.safe_load(Path(text).read_text()) if from_file else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ColpipeError(f"{where} {text!r}: cannot be read ({error})") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise ColpipeError(f"{where}: {path}: {problem['input']!r}: {problem['msg']}") from None
