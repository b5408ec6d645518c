"""What has to be made again: manifests against the study, without running anything."""

import json
import os
import shutil
from pathlib import Path

import pytest

from colpipe.config.loading import load_study
from colpipe.config.parts import Source
from colpipe.data.sources import content_of, fetch
from colpipe.errors import ColpipeError
from colpipe.jobs import artifacts
from colpipe.jobs.job import RECORD, made_from
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.reruns import Reruns, changed_settings, find_manifests
from colpipe.pipeline.rules import RULES
from tests.conftest import STUDY

SMALL = "results/tiny/chain/llama/small"


@pytest.fixture
def made(inputs, tmp_path, monkeypatch):
    """A tiny study whose every job has left a folder and an honest manifest; a function that looks at it."""
    (tmp_path / "inputs").symlink_to(inputs)
    monkeypatch.chdir(tmp_path)
    plan = Plan(load_study(STUDY))
    for job in plan.jobs(["results/tiny"]):
        row, folder = RULES[job.rule], Path(job.folder)
        parents = dict(plan.reported()) if job.rule == "report" else job.parents
        manifest = {
            "stage": row.stage or row.name,
            "settings": (asked := json.loads(plan.settings_text(job.rule, job.wildcards))),
            "seed": 0,
            "parents": {role: artifacts.fingerprint(parent) for role, parent in parents.items()},
            "made_from": made_from(row.module, asked),
        }
        if row.kind == "fetch":
            manifest["parents"] = content_of(plan.sources[job.folder], folder)
        if job.rule == "report":
            work = plan.work_folder(folder)
            work.mkdir(exist_ok=True)
            (folder / "report.html").write_text("the page")
            files = artifacts.hashes_of({"report.html": folder / "report.html"}, None)
            (work / RECORD).write_text(json.dumps(manifest | {"files": files}))
            continue
        staging = tmp_path / "staging"
        staging.mkdir()
        (staging / "content").write_text(job.folder)
        artifacts.publish(staging, folder, manifest, {})

    def look(changes=(), compare_code: bool = True, place=str, **keys) -> tuple[set[str], dict[str, str]]:
        """(what is stale, why) of a study with changed keys."""
        study = json.loads(json.dumps({**STUDY, **keys}))
        for path, value in dict(changes).items():
            *parts, last = path.split(".")
            block = study
            for part in parts:
                block = block[part]
            block[last] = value
        plan = Plan(load_study(study), place=place)
        reruns = Reruns(plan, find_manifests(plan)[0])
        reruns.compare_code = compare_code
        stale = {job.folder for job in plan.jobs([plan.results]) if reruns.is_stale(job.folder)}
        return {folder.removeprefix("results/tiny").strip("/") for folder in stale}, reruns.reasons

    return look


def below(*models: str) -> set[str]:
    return {*models, *(f"scores/{model}" for model in models), ""}


def test_nothing_is_stale_that_is_what_the_study_asks_for(made):
    assert made() == (set(), {})


def test_a_setting(made):
    stale, reasons = made({"chain.small.distill": {"steps": 5}})
    lower = [f"desnets/llama/lower/nested/{budget}" for budget in ("0", "512")]
    assert stale == below("chain/llama/small", *lower)
    assert reasons[SMALL] == "training.steps 4 → 5"
    assert "results/tiny/scores/chain/llama/small" not in reasons  # only its parent is made again


def test_the_seed_is_in_everything_but_what_studies_share(made):
    stale, reasons = made(seed=7)
    plan = Plan(load_study(STUDY))
    everything = {job.folder.removeprefix("results/tiny").strip("/") for job in plan.jobs(["results/tiny"])}
    assert stale == {folder for folder in everything if not folder.startswith("resources/")}
    assert reasons == {"results/tiny/tokenizer": "seed 0 → 7"}


def test_one_more_desnet_reaches_the_report(made):
    stale, reasons = made({"desnets.more": {"shape": {"layers": 3, "heads": 2, "hidden": 16}}})
    more = [f"desnets/{parent}/more/{init}/{budget}" for parent, init in (("llama", "nested"), ("scratch", "rand"))
            for budget in ("0", "512")]  # fmt: skip
    assert stale == below(*more) and reasons == {}


def test_a_budget_that_only_leads_to_another_is_looked_at(made):
    assert made(budgets=[512]) == ({""}, {"results/tiny": "budgets [0, 512] → [512]"})


def test_a_content_that_changed_is_told_with_its_role(made):
    Path(SMALL, "content").write_text("another checkpoint")
    stale, reasons = made()
    lower = [f"desnets/llama/lower/nested/{budget}" for budget in ("0", "512")]
    assert stale == below("chain/llama/small", *lower) - {"chain/llama/small"}  # swapped by hand: it stays
    assert reasons[f"results/tiny/{lower[0]}"] == f"smaller ({SMALL}) has changed"


def test_a_deleted_manifest_is_made_again_and_what_follows(made):
    Path(SMALL, "manifest.json").unlink()
    stale, reasons = made()
    assert "chain/llama/small" in stale and "scores/desnets/llama/lower/nested/512" in stale and reasons == {}


def test_a_local_source_that_changed(made, inputs, tmp_path):
    (tmp_path / "inputs").unlink()
    (tmp_path / "inputs").mkdir()
    for path in inputs.iterdir():
        (tmp_path / "inputs" / path.name).symlink_to(path)
    assert made() == (set(), {})  # the same bytes at another place
    (tmp_path / "inputs/articles.json").unlink()
    text = (inputs / "articles.json").read_text()
    (tmp_path / "inputs/articles.json").write_text(text.replace("old", "new", 1))
    stale, reasons = made()
    staged = Plan(load_study(STUDY)).datasets["articles"]
    assert reasons == {staged: "source (source) has changed"} and staged in stale and "tokenizer" in stale


def test_a_study_that_was_moved_with_its_sources(inputs, tmp_path, monkeypatch):
    """Staged files are links to the sources; they are mended, and nothing is made again."""
    study = {**STUDY, "study": "moved"}
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "before")
    shutil.copytree(inputs, "inputs")
    plan = Plan(load_study(study))
    for folder, source in plan.sources.items():
        fetch(source, Path("staging"), "dataset")
        artifacts.publish(Path("staging"), Path(folder), {"parents": content_of(source, Path(folder))}, {})
    os.rename(tmp_path / "before", tmp_path / "after" / "here")
    monkeypatch.chdir(tmp_path / "after" / "here")
    finished, _ = find_manifests(Plan(load_study(study)))
    assert set(finished) == set(plan.sources)
    for folder, manifest in finished.items():
        assert manifest["files"] == artifacts.content_hashes(Path(folder))
        assert manifest["parents"] == content_of(plan.sources[folder], Path(folder))


def test_what_is_not_taken_of_a_source_does_not_count(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    source = Source(path=str(tmp_path), files=["*.jsonl"])
    before = content_of(source, tmp_path / "staged")
    (tmp_path / "notes.txt").write_text("more")
    (tmp_path / ".hidden").write_text("more")
    assert content_of(source, tmp_path / "staged") == before
    (tmp_path / "b.jsonl").write_text("{}")
    assert content_of(source, tmp_path / "staged") != before


def test_code_counts_unless_it_shall_not(made, monkeypatch):
    monkeypatch.setattr("colpipe.jobs.job.code_of", lambda module, asked: module)
    assert made(compare_code=False) == (set(), {})
    stale, reasons = made()
    assert "" in stale and {reason for reason in reasons.values()} == {
        "code of the stage fetch_dataset has changed",
        "code of the stage fetch_model has changed",
    }  # all else follows from these


def test_a_reader_is_code_of_what_reads_with_it(made, monkeypatch):
    from colpipe.jobs import code

    before = code.code_version
    monkeypatch.setattr(code, "code_version", lambda module: "new" if module.endswith("boolq") else before(module))
    assert set(made()[1]) == {"results/tiny/data/boolq"}


def test_a_manifest_that_does_not_say_what_it_was_made_of(made):
    path = Path(SMALL, "manifest.json")
    manifest = artifacts.read_manifest(SMALL)
    del manifest["made_from"]
    path.write_text(json.dumps(manifest))
    assert made()[1][SMALL].startswith("an earlier version of colpipe made it")


def test_a_report_whose_record_is_gone(made):
    Path("results/tiny/work", RECORD).unlink()
    assert made()[0] == {""}


@pytest.mark.parametrize("damage", ["", "another page", None])
def test_a_report_that_was_damaged(made, damage):
    path = Path("results/tiny/report.html")
    path.unlink() if damage is None else path.write_text(damage)
    assert made() == ({""}, {"results/tiny": "report.html in it is gone or was changed"})


@pytest.mark.parametrize("text", ["[]", "{", '{"made_from": {"settings": 1, "code": 2}, "files": {}}', '{"files": []}'])
def test_a_record_that_is_none_is_no_record(made, text):
    Path("results/tiny/work", RECORD).write_text(text)
    assert made()[0] == {""}


def test_results_on_another_disk(made, tmp_path):
    shutil.move("results/tiny/chain", tmp_path / "large disk")
    Path("results/tiny/chain").symlink_to(tmp_path / "large disk")
    assert made() == (set(), {})


def test_what_the_study_no_longer_has_disturbs_nobody(made):
    Path("results/tiny/chain/llama/old").mkdir()
    Path("results/tiny/chain/llama/old/manifest.json").write_text("damaged")
    assert made() == (set(), {})


def test_a_file_that_is_gone_is_told(made):
    Path(SMALL, "content").unlink()
    with pytest.raises(ColpipeError, match=rf"{SMALL}/content: is gone, but .*manifest.json names it"):
        made()


def test_a_manifest_that_waits_is_found(made):
    artifacts.supersede(Path(SMALL))
    Path(SMALL, "manifest.json").unlink()
    finished, superseded = find_manifests(Plan(load_study(STUDY)))
    assert SMALL not in finished and superseded == [Path(SMALL)]


def test_changed_settings_are_told_by_their_path():
    before = {"training": {"steps": 4, "data": ["a"], "extra": 1}, "shape": {"layers": 2}}
    after = {"training": {"steps": 5, "data": ["a", "b"]}, "shape": {"layers": 2}, "new": 3}
    assert changed_settings(before, after) == ["training.steps 4 → 5", 'training.data ["a"] → ["a", "b"]']


def test_what_a_manifest_says_it_was_made_from_keeps_the_order_of_a_study(study):
    turned = dict(reversed(study.items()))
    assert (
        made_from("colpipe.stages.report", study)["settings"] != made_from("colpipe.stages.report", turned)["settings"]
    )
