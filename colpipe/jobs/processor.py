"""How fast this machine's processor is, measured in a tenth of a second (no torch here)."""

import os
import time
from functools import cache
from pathlib import Path

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py

SIZE = 768  # rows and columns of the matrices that are multiplied
TIMES = 8
REACHED = 0.6  # of the rate of a matrix product: what trainings of small models reach
FASTER = 2.5  # in bfloat16: a distillation of SmolLM2-135M, measured on an AMD EPYC with avx512_bf16

CPU = Path("/proc/cpuinfo")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # what Linux calls a processor's arithmetic in it
# 65 times in matrix products, by torch 2.13 on an AVX2 processor; a training of SmolLM2-135M made 2 tokens a second.
NO_BFLOAT16 = (
    f"This CPU has no arithmetic in bfloat16 ({', '.join(BFLOAT16)}): what the study has in it takes tens of times as "
    "long here as in float32, which no estimate counts. Write `precision: float32`, or run it where there is some."
)


def has_bfloat16(cpu: Path = CPU) -> bool | None:
    """Whether this CPU has arithmetic in bfloat16; None where its system does not tell."""
    try:
        text = cpu.read_text()
    except OSError:
        return None
    return bool(set(BFLOAT16) & set(text.split()))


def lacks_bfloat16(cpu: Path = CPU) -> bool:
    """Whether this CPU has to emulate bfloat16; False where its system does not tell."""
    return has_bfloat16(cpu) is False


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def training_rate(precision: str = "float32") -> float:
    """FLOP/s that a training reaches on one core: in float32 by the fastest of a few matrix products on it, and in bfloat16,
    where it has arithmetic in it, `FASTER` times as many."""
    return _rate() * (_speed_up() if precision == "bfloat16" else 1.0)


@cache
def _speed_up() -> float:
    """Of bfloat16; read once, because every job of an estimate asks."""
    return FASTER if has_bfloat16() else 1.0


@cache
def _rate() -> float:
    import numpy as np  # spared plans and dry runs, which ask for less
    from threadpoolctl import threadpool_limits

    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    with threadpool_limits(1):
        seconds = min(_seconds(matrix) for _ in range(TIMES))
    return REACHED * 2 * SIZE**3 / seconds


def _seconds(matrix) -> float:
    begun = time.process_time()  # other programs' share of the core does not count
    matrix @ matrix
    return time.process_time() - begun
