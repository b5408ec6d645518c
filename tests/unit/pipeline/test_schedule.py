"""How long a run takes: jobs wait for their inputs and for cores."""

from types import SimpleNamespace

import pytest

from colpipe.config.loading import load_study
from colpipe.pipeline.graph import PlannedJob
from colpipe.pipeline.schedule import seconds_together, threads_for, threads_of
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
        if "threads: HALF" in text or f'threads: threads_for(STUDY, "{text.partition(":")[0]}", CORES, HALF)' in text
        for name in [text.partition(":")[0]]
    }
    wide = {rule for rule in half if threads_of(rule, 8) == 4}
    assert wide == half and {"distill", "order", "sft"} <= half


LARGE = {"layers": 12, "heads": 8, "kv_heads": 8, "hidden": 512, "ffn": 1024}
SMALL = {"layers": 2, "heads": 2, "kv_heads": 2, "hidden": 128, "ffn": 256}


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        (lambda study: None, {"sft", "order", "distill"}),
        (lambda study: study["initialisers"].update(rand={"kind": "rand"}), set()),  # nothing that it would wait for
        (lambda study: study["ancestors"].update(other=study["ancestors"]["one"]), set()),
        (lambda study: study["chain"].update(large={"shape": {**SMALL, "layers": 4}}), set()),
    ],
)
def test_up_to_the_first_member_of_an_only_chain_jobs_have_all_cores(change, alone, tmp_path):
    study = {
        "study": "s",
        "architecture": {"family": "llama", "vocabulary": 4096, "positions": 256},
        "tokenizer": {"model": "big"},
        "models": {"big": {"source": {"path": str(tmp_path)}}},
        "datasets": {"text": {"reader": "text", "source": {"path": str(tmp_path)}}},
        "corpora": {"text": {"dataset": "text"}},
        "ancestors": {"one": {"model": "big", "select": "rank"}},
        "chain": {"large": {"shape": LARGE}, "small": {"shape": SMALL}},
        "desnets": {"between": {"shape": {**SMALL, "layers": 3}}},
        "initialisers": {"fit": {"kind": "linit"}},
        "stages": {"distill": {"steps": 4, "max_length": 128}},
    }
    change(study)
    loaded = load_study(study)
    found = {
        rule
        for rule in ("sft", "order", "distill", "recover", "evaluate", "assemble")
        if threads_for(loaded, rule, 8, 4)(SimpleNamespace(member="large")) == 8
    }
    assert found == alone
    assert threads_for(loaded, "distill", 8, 4)(SimpleNamespace(member="small")) == 4  # beside DesNets of the first


def test_a_job_that_has_all_cores_has_them_alone():
    jobs = [job("evaluate", "a"), job("distill", "b"), job("evaluate", "c")]
    together = seconds_together(jobs, lambda job: SECONDS[job.folder], 2)
    assert together == 20
    assert seconds_together(jobs, lambda job: SECONDS[job.folder], 2, lambda job: job.rule == "distill") == 20 + 10
