"""A distillation that is killed (SIGKILL) and goes on, against one that was not; and one that breaks, which must say so."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from colpipe.errors import ColpipeError
from tests.gpu.finding import Finding, found
from tests.gpu.tiny import World, difference, distilled

STEPS, KILLED_AT = 40, 12
CONTEXT = multiprocessing.get_context("fork")  # before this process has used the device


def check(world: World) -> Iterator[Finding]:
    for objective in ("reverse_kl", "minillm"):
        folder = world.folder / objective
        _finish(folder / "whole", objective, world.device)
        step = _kill(folder / "cut", objective, world.device)
        _finish(folder / "cut", objective, world.device)
        whole, cut = (torch.load(folder / name / "trained.pt", weights_only=False) for name in ("whole", "cut"))
        apart, same = difference(cut, whole), torch.equal(cut.weights, whole.weights)
        # Sums by atomic additions come in another order each time on a GPU; on a CPU nothing may differ.
        right = same or (world.has_accelerator and max(apart.values()) < 1e-3)
        said = "the same bits" if same else f"losses {apart['losses']:.1e} and weights {apart['weights']:.1e} apart"
        yield found(right, f"{objective}, killed after step {step} of {STEPS}", said, same_bits=same, **apart)
    yield _breaks(world)


def _distil(folder: Path, objective: str, device: torch.device) -> None:
    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    runtime = {"save_minutes": 0}
    trained = distilled(folder / "job", objective, device, runtime=runtime, steps=STEPS, evaluations=2)
    torch.save(trained, folder / "trained.pt")


def _start(folder: Path, objective: str, device: torch.device):
    folder.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=_distil, args=(folder, objective, device))
    process.start()
    return process


def _finish(folder: Path, objective: str, device: torch.device) -> None:
    process = _start(folder, objective, device)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"ended with {process.exitcode}: {(folder / 'said.txt').read_text()[-500:]}")


def _kill(folder: Path, objective: str, device: torch.device) -> int:
    """Kill it once it has measured some steps; the last of these."""
    process = _start(folder, objective, device)
    while (done := _measured(folder)) < KILLED_AT and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise RuntimeError(
            f"was not killed, it ended with {process.exitcode}: {(folder / 'said.txt').read_text()[-500:]}"
        )
    return done


def _measured(folder: Path) -> int:
    """Steps that a job has measured."""
    files = list(folder.glob("job/work/state-*/metrics.jsonl"))
    return sum('"train"' in line for line in files[0].read_text().splitlines()) if files else 0


def _breaks(world: World) -> Finding:
    name = "a loss that is not a number"
    try:
        distilled(world.folder / "broken", "reverse_kl", world.device, learning_rate=1e30, max_grad_norm=1e30)
    except ColpipeError as error:
        return found("lower learning_rate" in str(error), name, f"stops: {str(error)[:90]} …")
    return found(False, name, "was trained on as if it were one")
