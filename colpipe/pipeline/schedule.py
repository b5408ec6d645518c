"""How long a run takes on one machine, from what its jobs take: as many side by side as its cores allow (no torch here)."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

from colpipe.config.study import Study
from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.rules import RULES

ON_ONE = ("recover", "evaluate", "stack")  # models work in them, on a single thread: there are many of them
BEFORE = ("pretrain", "sft", "write_corpus", "order")  # what the first member of a chain may wait for
GAINS = 20_000_000  # parameters of a model that learns faster on all cores; micro models hardly do
START = 3.5  # seconds that a job takes beside its stage: Python, torch and Snakemake


def threads_of(rule: str, cores: int, is_alone: bool = False) -> int:
    """That a job of a rule gets on a machine of so many cores, as workflow/rules/ says it."""
    return cores if is_alone else max(1, cores // 2) if _leads(rule) else 1


def is_alone(study: Study, rule: str, wildcards: SimpleNamespace) -> bool:
    """Whether a job gets all cores because hardly anything can be worked on beside it: up to the first member of a study's
    only chain, where neither a bridge nor DesNets that need no chain could have the other half."""
    [name, *others] = study.ancestors
    first = study.members(name)[0]
    is_before = rule in BEFORE or (rule == "distill" and wildcards.member == first)
    if not is_before or others:  # said first: estimates ask for every job, and a study may build thousands of DesNets
        return False
    free = {"rand", "distilled"} & {study.initialisers[init].kind for _, init, _ in study.builds_of(name)}
    return not (free or study.ancestors[name].bridge or study.parameters(study.chain[first].shape) < GAINS)


def threads_for(study: Study, rule: str, cores: int, half: int) -> Callable[[SimpleNamespace], int]:
    """What Snakemake asks with a job's wildcards for its threads; `half` of the cores, or all."""
    return lambda wildcards: cores if is_alone(study, rule, wildcards) else half


def _leads(rule: str) -> bool:
    """Whether a rule makes what the chain waits for."""
    return rule in RULES and RULES[rule].kind in ("accelerator", "data-parallel") and rule not in ON_ONE


def seconds_together(
    jobs: Sequence[PlannedJob],
    seconds: Callable[[PlannedJob], float],
    cores: int,
    alone: Callable[[PlannedJob], bool] = lambda job: False,
) -> float:
    """From the start of the first job to the end of the last; what the chain waits for goes first.

    Args:
        jobs: inputs first.
        seconds: that a job takes on the threads that it gets.
        alone: whether it gets all of them.
    """
    threads = {job.folder: threads_of(job.rule, cores, alone(job)) for job in jobs}
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
            if waits[job.folder] <= done and threads[job.folder] <= free:
                order.remove(job)
                free -= threads[job.folder]
                heapq.heappush(running, (now + seconds(job), id(job), job))
        now, _, ended = heapq.heappop(running)
        done.add(ended.folder)
        free += threads[ended.folder]
    return now
