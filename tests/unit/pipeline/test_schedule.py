"""How long a run takes: jobs wait for their inputs and for cores."""

from types import SimpleNamespace

import pytest

from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.schedule import seconds_together, threads_of
from tests.conftest import CHECKOUT

SECONDS = {"a": 10.0, "b": 20.0, "c": 5.0, "d": 7.0, "e": 1.0}


def job(rule: str, folder: str, *parents: str) -> PlannedJob:
    return PlannedJob(rule, SimpleNamespace(), folder, {str(number): each for number, each in enumerate(parents)})


# a ─▶ b, c, d ─▶ e; b is of the chain, others are scores.
JOBS = [
    job("order", "a", "elsewhere"),
    job("evaluate", "c", "a"),
    job("evaluate", "d", "a"),
    job("distill", "b", "a"),
    job("report", "e", "b", "c", "d"),
]


@pytest.mark.parametrize(("cores", "seconds"), [(1, 10 + 20 + 5 + 7 + 1), (2, 10 + 20 + 1), (4, 10 + 20 + 1)])
def test_side_by_side(cores, seconds):
    assert seconds_together(JOBS, lambda job: SECONDS[job.folder], cores) == seconds


def test_what_the_chain_waits_for_goes_first():
    jobs = [job("evaluate", "a"), job("distill", "b"), job("distill", "c", "b")]
    assert seconds_together(jobs, lambda job: SECONDS[job.folder], 1) == 35


def test_threads_are_those_of_the_rules():
    assert (threads_of("distill", 1), threads_of("distill", 2), threads_of("distill", 9)) == (1, 1, 4)
    assert (threads_of("recover", 8), threads_of("evaluate", 8), threads_of("assemble", 8)) == (1, 1, 1)
    half = {
        name
        for path in (CHECKOUT / "workflow/rules").glob("*.smk")
        for text in path.read_text().split("\nrule ")[1:]
        if "threads: HALF" in text
        for name in [text.partition(":")[0]]
    }
    wide = {rule for rule in half if threads_of(rule, 8) == 4}
    assert wide == half and {"distill", "order", "sft"} <= half
