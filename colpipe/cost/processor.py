"""How fast this machine's processor is, measured in a tenth of a second (no torch here)."""

import os
import time
from functools import cache

import numpy as np
from threadpoolctl import threadpool_limits

SIZE = 768  # rows and columns of the matrices that are multiplied
TIMES = 8
REACHED = 0.6  # of the rate of a matrix product: what trainings of small models reach


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def training_rate() -> float:
    """FLOP/s in float32 that a training reaches on one core, by the fastest of a few matrix products on it."""
    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    with threadpool_limits(1):
        seconds = min(_seconds(matrix) for _ in range(TIMES))
    return REACHED * 2 * SIZE**3 / seconds


def _seconds(matrix: np.ndarray) -> float:
    begun = time.process_time()  # other programs' share of the core does not count
    matrix @ matrix
    return time.process_time() - begun
