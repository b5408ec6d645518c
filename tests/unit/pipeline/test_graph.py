"""The jobs of a study, from the rule table."""

import pytest

from colpipe.config.loading import load_study
from colpipe.pipeline.graph import count_by_rule, find_job, lineage
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES


@pytest.fixture
def plan_of(inputs, tmp_path, monkeypatch):
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    return lambda study: Plan(load_study(study))


def jobs_of(plan):
    return lineage(RULES, plan, plan.results)


def test_every_job_of_the_tiny_study(plan_of, study):
    jobs = jobs_of(plan_of(study))
    assert all(job.rule for job in jobs.values())
    counts, edges = count_by_rule(RULES, jobs)
    assert counts == {
        "fetch_model": 1,
        "fetch_dataset": 2,
        "train_tokenizer": 1,
        "prepare_corpus": 1,
        "prepare_instructions": 2,
        "pretrain": 1,
        "sft": 1,
        "bridge_answers": 1,
        "bridge": 1,
        "distill": 3,
        "assemble": 4,
        "recover": 4,
        "evaluate": 12,
        "leakage": 1,
        "report": 1,
    }
    assert {("distill", "assemble"), ("distill", "distill"), ("leakage", "report")} <= edges
    assert ("fetch_model", "evaluate") not in edges


def test_a_teachers_signal_is_read_by_what_it_comes_from(plan_of, study):
    study["ancestors"]["llama"]["distill"] = {"signal": 8}
    _, edges = count_by_rule(RULES, jobs_of(plan_of(study)))
    assert {("teacher_signal", "distill"), ("distill", "teacher_signal")} <= edges


def test_which_of_two_rules_makes_a_folder(plan_of, study):
    study["initialisers"]["alone"] = {"kind": "distilled"}
    study["stacks"] = {"fslm": {"ancestor": "llama", "member": "small", "tasks": ["boolq"]}}
    plan = plan_of(study)
    rules = {
        "data/stories": "prepare_corpus",
        "data/boolq": "prepare_instructions",
        "desnets/llama/upper/alone/0": "distill_desnet",
        "desnets/llama/upper/nested/0": "assemble",
        "desnets/llama/upper/nested/512": "recover",
        "scores/desnets/llama/upper/nested/512": "evaluate",
        "scores/stacks/fslm": "stack",
        "elsewhere": "",
    }
    assert {folder: find_job(RULES, plan, f"{plan.results}/{folder}").rule for folder in rules} == rules
