"""What is looked at before Snakemake is told of a study."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError

from colpipe.config.loading import load_study
from colpipe.errors import ColpipeError
from colpipe.jobs.processor import NO_BFLOAT16
from colpipe.pipeline import snakefile
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.snakefile import no_target, refuse_unknown_targets, require_folders, require_trackers_here


@pytest.mark.parametrize("file", ["results", "results/tiny"])
def test_a_file_in_place_of_results_is_named(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    require_folders("results/tiny", "resources")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(ColpipeError) as refusal:
        require_folders("results/tiny", "resources")
    assert str(refusal.value) == f"{file}: is a file, where a folder of results is to be; move it away"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),
        ({"is_main_process": False}, False),
        ({"remote_exec": True}, False),
        ({"resource_settings": SimpleNamespace(nodes=20)}, False),
        ({"deployment_settings": SimpleNamespace(deployment_method={"conda"})}, False),
    ],
)
def test_missing_trackers_are_refused_where_jobs_run_with_this_python(monkeypatch, changes, refused):
    monkeypatch.setattr("colpipe.config.trackers.find_spec", lambda name: None)
    here = {
        "is_main_process": True,
        "remote_exec": False,
        "resource_settings": SimpleNamespace(nodes=None),
        "deployment_settings": SimpleNamespace(deployment_method=set()),
    }
    with pytest.raises(ColpipeError, match="pip install trackio") if refused else nullcontext():
        require_trackers_here(SimpleNamespace(**here | changes), ["trackio"])
    require_trackers_here(SimpleNamespace(**here), [])


@pytest.mark.parametrize("changed", ["evaluate", "distill", "member"])
def test_bfloat16_is_told_of_where_this_machine_would_emulate_it(study, inputs, tmp_path, monkeypatch, changed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.setattr(snakefile, "lacks_bfloat16", lambda: True)
    monkeypatch.setattr(snakefile, "_has_accelerators", lambda: False)
    here, there = SimpleNamespace(remote_exec=False), SimpleNamespace(remote_exec=True)
    assert snakefile.slow_here(load_study(study), here) == []  # sizes in bfloat16 are no arithmetic
    if changed == "member":
        study["chain"]["small"]["distill"] = {"precision": "bfloat16"}
    else:
        study["stages"].setdefault(changed, {})["precision"] = "bfloat16"
    assert snakefile.slow_here(load_study(study), here) == [NO_BFLOAT16]
    assert snakefile.slow_here(load_study(study), there) == []
    monkeypatch.setattr(snakefile, "lacks_bfloat16", lambda: False)
    assert snakefile.slow_here(load_study(study), here) == []


def test_a_fit_in_bfloat16_is_told_of_beside_accelerators_too(study, inputs, tmp_path, monkeypatch):
    """DesNets are fitted on the CPU."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.setattr(snakefile, "lacks_bfloat16", lambda: True)
    monkeypatch.setattr(snakefile, "_has_accelerators", lambda: True)
    here = SimpleNamespace(remote_exec=False)
    study["stages"]["evaluate"] = {"precision": "bfloat16"}
    study["stages"]["fit"] = {"precision": "bfloat16"}
    assert snakefile.slow_here(load_study(study), here) == []  # nothing is fitted
    study["initialisers"]["fit"] = {"kind": "linit"}
    assert snakefile.slow_here(load_study(study), here) == [NO_BFLOAT16]
    study["stages"]["fit"] = {"precision": "float32"}
    assert snakefile.slow_here(load_study(study), here) == []


@pytest.fixture
def sizes(study, inputs, tmp_path, monkeypatch):
    """The plan of a study whose models are called by their size."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").symlink_to(inputs)
    names = {"large": "9k", "medium": "4k", "upper": "6k", "small": "1k", "lower": "3k"}
    for block in ("chain", "desnets"):
        study[block] = {names[name]: entry for name, entry in study[block].items()}
    return Plan(load_study(study))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("publishedd", "did you mean published?"),
        ("publish", "did you mean published?"),
        ("desnet/6x", "did you mean desnets/6k?"),
        ("90k", "its models are 9k, 6k, 4k, 3k, 1k"),
        ("chain/2k", "its models are chain/1k, chain/4k, chain/9k"),
        ("what", "its models are 9k, 4k, 1k, 6k, 3k"),
    ],
)
def test_what_may_be_meant_by_a_target_that_is_none(sizes, name, meant):
    line = f"{name}: is no target of this study; {meant} (targets: colpipe run STUDY --list-target-rules)"
    assert no_target(sizes, name, ["all", "published", "exported"]) == line


def make_workflow(**changes):
    """Rules of which one makes many files, one `made.txt` and one is a target; asked for is what `targets` says."""

    def rule(name, wildcards=False, makes=""):
        return SimpleNamespace(name=name, has_wildcards=lambda: wildcards, is_producer=makes.__eq__)

    rules = [rule("distill", wildcards=True), rule("report", makes="made.txt"), rule("published")]
    names = {each.name for each in rules}
    modifier, settings = (
        SimpleNamespace(parent_modifier=None),
        SimpleNamespace(targets={"distill", "publishedd", "published"}),
    )
    here = {"modifier": modifier, "is_main_process": True, "is_rule": names.__contains__, "rules": rules}
    return SimpleNamespace(**{**here, "dag_settings": settings, **changes})


def test_snakemake_asks_whether_a_word_is_a_target(sizes, tmp_path):
    (tmp_path / "there.txt").touch()
    workflow = make_workflow()
    refuse_unknown_targets(sizes, workflow)
    for word in ("published", "made.txt", "there.txt", "results/mine/what"):
        assert workflow.is_rule(word) == (word == "published")
    for word in ("publishedd", "distil", "distill"):  # a rule of many jobs is no target
        with pytest.raises(WorkflowError, match=rf"^{word}: is no target of this study"):
            workflow.is_rule(word)
    workflow.dag_settings.targets = set()
    assert workflow.is_rule("distill")  # of --forcerun
    with pytest.raises(WorkflowError, match=r"did you mean distill\?"):
        workflow.is_rule("distil")


@pytest.mark.parametrize(
    "changes",
    [{"modifier": SimpleNamespace(parent_modifier=1)}, {"is_main_process": False}, {"dag_settings": None}],
)
def test_rules_of_others_and_those_that_are_being_made_are_left_alone(sizes, changes):
    workflow = make_workflow(**changes)
    refuse_unknown_targets(sizes, workflow)
    assert not workflow.is_rule("publishedd") and workflow.is_rule("distill")
