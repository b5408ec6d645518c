"""What is looked at before Snakemake is told of a study."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from colpipe.config.loading import load_study
from colpipe.cost.processor import NO_BFLOAT16
from colpipe.errors import ColpipeError
from colpipe.pipeline import snakefile
from colpipe.pipeline.snakefile import require_folders, require_trackers_here


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
