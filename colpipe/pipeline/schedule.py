"""How long a run takes on one machine, from what its jobs take: as many side by side as its cores allow (no torch here)."""

import heapq
from collections.abc import Callable, Mapping, Sequence

from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.rules import RULES

ON_ONE = ("recover", "evaluate", "stack")  # models work in them, on a single thread: there are many of them
START = 3.5  # seconds that a job takes beside its stage: Python, torch and Snakemake


def threads_of(rule: str, cores: int) -> int:
    """That a job of a rule gets on a machine of so many cores, as workflow/rules/ says it."""
    return max(1, cores // 2) if _leads(rule) else 1


def _leads(rule: str) -> bool:
    """Whether a rule makes what the chain waits for."""
    return rule in RULES and RULES[rule].kind in ("accelerator", "data-parallel") and rule not in ON_ONE


def seconds_together(jobs: Sequence[PlannedJob], seconds: Callable[[PlannedJob], float], cores: int) -> float:
    """From the start of the first job to the end of the last; what the chain waits for goes first.

    Args:
        jobs: inputs first.
        seconds: that a job takes on the threads that it gets.
    """
    known = {job.folder for job in jobs}
    waits: Mapping[str, set[str]] = {
        job.folder: {each for each in job.parents.values() if each in known} for job in jobs
    }
    order = sorted(jobs, key=lambda job: not _leads(job.rule))
    running: list[tuple[float, int, PlannedJob]] = []
    done: set[str] = set()
    now, free = 0.0, cores
    while order or running:
        for job in list(order):
            if waits[job.folder] <= done and threads_of(job.rule, cores) <= free:
                order.remove(job)
                free -= threads_of(job.rule, cores)
                heapq.heappush(running, (now + seconds(job), id(job), job))
        now, _, ended = heapq.heappop(running)
        done.add(ended.folder)
        free += threads_of(ended.rule, cores)
    return now
