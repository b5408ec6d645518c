"""How often an update waits for the device: each place where Python asks for a number that the device has yet to compute.

On CUDA, torch's own warnings are counted (`torch.cuda.set_sync_debug_mode`). On a CPU, operations are counted that would
have to wait on an accelerator (`item`, `nonzero`, indexing by a mask); some are of numbers that never leave the CPU.
"""

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from colpipe.jobs.device import backend
from colpipe.jobs.kinds import KINDS
from colpipe.training.rollouts import sample
from colpipe.training.trainer import ObjectiveTrainer
from tests.gpu.finding import Finding, found, not_run
from tests.gpu.tiny import END, LARGE, PROMPTS, SMALL, World, distilled, model

STEPS, FIRST = 12, 6  # counted are the updates behind the first ones
# In our own code, a forward and backward pass: see docs/accelerators.md.
ALLOWED = {"reverse_kl": 1, "forward_kl": 1}
# In our own code for each token of a batch of samples: which rows go on. The rest is once a batch.
NEW, ALLOWED_OF_A_TOKEN = 32, 1.5
KNOWN = ("colpipe", "transformers", "accelerate")  # by where they lie: a checkout may be in a folder called colpipe
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "_unique2")


def check(world: World) -> Iterator[Finding]:
    if world.has_accelerator and not KINDS[world.device.type].counts_waits:
        yield not_run("waits", f"torch.{world.device.type} has no mode that counts them")
        return
    for objective, allowed in ALLOWED.items():
        places = _count(world, objective)
        updates = STEPS - FIRST
        shown = ", ".join(f"{place} {count / updates:g}" for place, count in places.most_common(8))
        mine, all_of_them = _of_colpipe(places) / updates, sum(places.values()) / updates
        said = f"{mine:g} an update in colpipe (at most {allowed}), {all_of_them:g} in all: {shown or 'none'}"
        yield found(mine <= allowed, objective, said, ours=mine, all=all_of_them)
    places = _sampling(world)
    mine, all_of_them = _of_colpipe(places) / NEW, sum(places.values()) / NEW
    said = f"{mine:.2g} a token in colpipe (at most {ALLOWED_OF_A_TOKEN}), {all_of_them:.2g} in all"
    yield found(mine <= ALLOWED_OF_A_TOKEN, "sampling of two models", said, ours=mine, all=all_of_them)


def _of_colpipe(places: Counter) -> int:
    return sum(count for place, count in places.items() if place.startswith("colpipe"))


def _sampling(world: World) -> Counter:
    """Place → how often it waited, while rows of two models mixed were sampled."""
    models = {name: model(shape, 1).to(world.device) for name, shape in (("student", SMALL), ("teacher", LARGE))}
    counter = _Warnings(world.device) if world.has_accelerator else _Operations()
    with counter:
        sample(models, {"student": 0.8, "teacher": 0.2}, PROMPTS[:8], [NEW] * 8, [END], 0, preallocated=True)
    return counter.places


def _count(world: World, objective: str) -> Counter:
    """Place → how often it waited, in all counted updates."""
    counter = _Warnings(world.device) if world.has_accelerator else _Operations()
    step = ObjectiveTrainer.training_step

    def watched(self, *arguments, **named):
        if self.state.global_step < FIRST:
            return step(self, *arguments, **named)
        with counter:
            return step(self, *arguments, **named)

    ObjectiveTrainer.training_step = watched
    try:
        distilled(world.folder / objective, objective, world.device, steps=STEPS, evaluations=0)
    finally:
        ObjectiveTrainer.training_step = step
    return counter.places


class _Warnings:
    """torch's warnings, by the line of Python that made the device wait."""

    def __init__(self, device: torch.device):
        self.backend, self.places = backend(device), Counter()

    def __enter__(self):
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self._note
        self.backend.set_sync_debug_mode("warn")

    def _note(self, message, *_, **__) -> None:
        if "synchroniz" in str(message):
            self.places[_place()] += 1

    def __exit__(self, *_):
        self.backend.set_sync_debug_mode("default")
        self.caught.__exit__(*_)


class _Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.places: Counter = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in arguments[1]
        )
        if by_mask or name in WAITS:
            self.places[_place()] += 1
        return function(*arguments, **(named or {}))


def _place() -> str:
    """The innermost line of colpipe, or else of transformers or accelerate, that is at work."""
    for frame in reversed(traceback.extract_stack(sys._getframe(2))):
        for package in KNOWN:
            folder = Path(sys.modules[package].__path__[0])
            if (file := Path(frame.filename)).is_relative_to(folder):
                return f"{file.relative_to(folder.parent).as_posix()}:{frame.lineno}"
    return "elsewhere"
