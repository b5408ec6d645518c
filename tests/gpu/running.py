"""Checks one after the other, each in a process of its own, within a time."""

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tests.gpu.finding import FAILED, Finding, not_run

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.gpu.preload"])
LEAST = 5.0  # seconds that have to be left for another check


class Check(NamedTuple):
    """A module with a function `check`, which gives findings."""

    name: str
    about: str
    package: str = "tests.gpu"


# The most important first: where the time is over, the last are not run.
CHECKS = (
    Check("devices", "the device, and its products against float64"),
    Check("objectives", "every objective and its gradients"),
    Check("training", "small trainings, step by step"),
    Check("resume", "killed and resumed; a loss that is not a number"),
    Check("generation", "greedy completions, samples of a mixture"),
    Check("learngene", "LInit, initialisers and fit of models on the device"),
    Check("synchronisations", "waits for the device in an update"),
    Check("memory", "the estimate's memory against fact"),
    Check("speed", "tokens a second, utilisation, ours beside others'"),
    Check("estimate", "the estimate's FLOPs and hours against fact"),
)


def run_all(checks: tuple[Check, ...], device: str, folder: Path, end: float) -> Iterator[tuple[Check, Finding, float]]:
    """(check, what it found, seconds since it began), as soon as it is found; those that begin too late are not run."""
    for check in checks:
        begun = time.monotonic()
        if end - begun < LEAST:
            yield check, not_run(check.about, "the time is over"), 0.0
            continue
        for finding in _run(check, device, folder / check.name, end):
            yield check, finding, time.monotonic() - begun


def _run(check: Check, device: str, folder: Path, end: float) -> Iterator[Finding]:
    folder.mkdir(parents=True)
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(f"{check.package}.{check.name}", device, folder, theirs, end))
    process.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            yield ours.recv()
        process.kill()
        yield not_run("the rest", "the time is over")
    except EOFError:  # it has ended
        process.join()
        if process.exitcode:
            yield _broken(process.exitcode, folder)
    finally:
        process.kill()
        process.join()


def _broken(status: int, folder: Path) -> Finding:
    """A check that did not come to its end: what it said last."""
    lines = (folder / "said.txt").read_text().strip().splitlines()
    return Finding(
        FAILED, "ended", f"status {status}: {lines[-1][:300] if lines else 'it said nothing'}", {"said": lines[-20:]}
    )


def _device(kind: str):
    """The first of a kind, without a look at it: what has been looked at cannot be used by processes that are forked."""
    import torch

    from colpipe.jobs.kinds import KINDS

    if kind == "cpu":
        return torch.device("cpu")
    if package := KINDS[kind].package:
        importlib.import_module(package)
    return torch.device(kind, 0)


def _work(module: str, device: str, folder: Path, findings: Connection, end: float) -> None:
    """In the process of a check."""
    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    try:
        importlib.import_module("tests.gpu.preload")
        from tests.gpu.tiny import World

        world = World(_device(device), folder, lambda: end - time.monotonic())
        for finding in importlib.import_module(module).check(world):
            findings.send(finding)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
