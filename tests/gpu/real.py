"""Distillations and trainings at published shapes, weights random: what they cost by the estimate, and what they took."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from colpipe.config.parts import Architecture, Runtime, Shape
from colpipe.config.stages import Distill, Recover
from colpipe.cost.inputs import Data, SizedModel, of_shape
from colpipe.cost.passes import Pass, Work, training
from colpipe.hf.models import random_model
from colpipe.jobs import usage
from colpipe.jobs.device import peak_memory_of, start_peak
from colpipe.training.distillation import DistillationData, distill
from colpipe.training.trainer import train
from tests.gpu.tiny import World, open_job


class Pair(NamedTuple):
    """A student and its teacher."""

    name: str
    architecture: Architecture
    student: dict
    teacher: dict


GPT2 = Architecture()
QWEN3 = Architecture(family="qwen3", vocabulary=151936, positions=40960, tied=True)
SMOLLM2 = Architecture(family="llama", vocabulary=49152, positions=2048, tied=True)
GROUPED = {"heads": 16, "kv_heads": 8, "head_dim": 128}
PAIRS = {
    "gpt2": Pair(
        "GPT2-B from GPT2-M",
        GPT2,
        {"layers": 12, "heads": 12, "hidden": 768},
        {"layers": 24, "heads": 16, "hidden": 1024},
    ),
    "qwen3": Pair(
        "Qwen3-0.6B from 1.7B",
        QWEN3,
        {"layers": 28, "hidden": 1024, "ffn": 3072, **GROUPED},
        {"layers": 28, "hidden": 2048, "ffn": 6144, **GROUPED},
    ),
    "smollm2": Pair(
        "SmolLM2-135M from 360M",
        SMOLLM2,
        {"layers": 30, "heads": 9, "kv_heads": 3, "hidden": 576, "ffn": 1536},
        {"layers": 32, "heads": 15, "kv_heads": 5, "hidden": 960, "ffn": 2560},
    ),
    "small": Pair(  # for a CPU
        "0.9 M from 1.1 M",
        Architecture(vocabulary=4096, positions=256),
        {"layers": 2, "heads": 2, "hidden": 128},
        {"layers": 3, "heads": 2, "hidden": 128},
    ),
}


@dataclass(frozen=True)
class Ran:
    """What a training took.

    Attributes:
        seconds: of the steps that count, those behind the first few.
        tokens, flops: of these steps; tokens of the student's rows, FLOPs of all models.
        peak: bytes of the device's memory that were in use at most; 0 on a CPU.
        micro: rows of a forward pass, which is halved until it fits.
        work: the same training by the estimate, all steps.
        counted: FLOPs of all steps, as the models counted them.
        first: seconds up to the end of the first step, what it compiles included.
    """

    seconds: float
    tokens: float
    flops: float
    peak: int
    micro: int
    work: Work
    counted: float
    first: float


def built(pair: Pair, of: str, device: torch.device, dtype: torch.dtype = torch.float32):
    """A model of a pair, made on the device."""
    config = pair.architecture.configure(Shape(**getattr(pair, of)), 0)
    with torch.device(device):
        return random_model(config, 0).to(dtype)


def run(
    world: World, pair: Pair, length: int, batch: int, steps: int, precision: str = "bfloat16", taught: bool = True,
    skipped: int = 3, gradient_checkpointing: bool = False, change: Callable[[Any], Any] = lambda model: model,
) -> Ran:  # fmt: skip
    """Train on random blocks, with as many rows in a forward pass as the memory takes.

    Args:
        taught: a distillation (`forward_kl`); else pre-training.
        skipped: first steps that do not count.
        change: of the student and of the teacher, before the training.
    """
    micro = batch
    while True:
        try:
            return _run(
                world, pair, length, batch, steps, precision, taught, skipped, micro, gradient_checkpointing, change
            )
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
            micro //= 2
            empty(world.device)


def _run(world, pair, length, batch, steps, precision, taught, skipped, micro, checkpointing, change) -> Ran:
    device, kind = world.device, Distill if taught else Recover
    sizes = {"steps": steps, "batch_size": batch, "max_length": length, "precision": precision, "evaluations": 0}
    settings = kind(**sizes, **({"data": ["x"]} if taught else {}))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(pair.architecture.vocabulary, (batch * steps, length), generator=generator)
    blocks = [{"input_ids": row, "labels": row} for row in ids]
    empty(device)
    name = f"{pair.name}-{length}-{precision}-{taught}-{micro}-{time.monotonic_ns()}".replace(" ", "-")
    with open_job(
        world.folder / name, "distill", settings, device, micro_batch=micro, gradient_checkpointing=checkpointing
    ) as job:
        student = change(built(pair, "student", device))
        times, measure, before = [], job.measure, dict(usage.counted)

        def note(**values):
            times.append((time.monotonic(), usage.counted["flops"]))
            measure(**values)

        job.measure = note
        started = time.monotonic()
        if taught:
            teacher = change(built(pair, "teacher", device, getattr(torch, precision)))
            distill(job, student, teacher, settings, DistillationData(blocks, [], None, None, [0], 0))
        else:
            train(job, student, settings, blocks)
        job.measure = measure
    peak = peak_memory_of(device)
    (begun, before_them), (end, last) = times[skipped - 1], times[-1]
    counted = usage.counted["flops"] - before["flops"]
    runtime = Runtime(device=device.type, micro_batch=micro, gradient_checkpointing=checkpointing)
    work = estimated(pair, length, batch, steps, settings, runtime, taught)
    del student
    tokens, first = (steps - skipped) * batch * length, times[0][0] - started
    return Ran(end - begun, tokens, last - before_them, peak, micro, work, counted, first)


def estimated(pair, length, batch, steps, settings, runtime: Runtime, taught: bool) -> Work:
    """By the formulas of `colpipe estimate`."""
    student, teacher = (of_shape(pair.architecture, Shape(**shape)) for shape in (pair.student, pair.teacher))
    read: SizedModel | None = teacher._replace(precision=settings.precision) if taught else None
    return training(student, [Data(batch * steps, ((1, length - 1),))], settings, Pass(runtime, teacher=read))


def empty(device: torch.device) -> int:
    """Give back what is not in use, and look for a peak from here on; bytes that are in use now."""
    gc.collect()
    return start_peak(device)
