"""From a model to its sources, by what manifests say."""

import json

from colpipe.config.parts import Source
from colpipe.hashing import sha256
from colpipe.jobs import artifacts
from colpipe.pipeline.graph import PlannedJob, Wildcards
from colpipe.reporting.lineage import content, fetched, lineage, manifests, origin

PARENTS = {
    "results/s/chain/a/small": ("distill", {"teacher": "results/s/sft/a", "tokenizer": "results/s/tokenizer"}),
    "results/s/sft/a": ("sft", {"model": "resources/models/a-1", "tokenizer": "results/s/tokenizer"}),
    "results/s/tokenizer": ("train_tokenizer", {"dataset": "resources/data/d-1"}),
    "resources/models/a-1": ("fetch_model", {}),
    "resources/data/d-1": ("fetch_dataset", {}),
}
JOBS = {folder: PlannedJob(rule, Wildcards(), folder, parents) for folder, (rule, parents) in PARENTS.items()}


def publish(root, folder, text, settings=None):
    """A finished job, with the fingerprints of its parents as they are."""
    staging = root / "staging"
    staging.mkdir()
    (staging / "model.safetensors").write_text(text)
    parents = {name: artifacts.fingerprint(root / parent) for name, parent in JOBS[folder].parents.items()}
    artifacts.publish(staging, root / folder, {"parents": parents, "settings": settings or {}}, {})


def study(root):
    for folder in reversed(JOBS):
        source = {"hub": "owner/a", "revision": "v1"} if "models" in folder else {"path": "d.json"}
        publish(root, folder, folder, source if folder.startswith("resources") else None)
    return manifests(root, JOBS)


def test_content_is_the_fingerprint_of_the_folder(tmp_path):
    known = study(tmp_path)
    assert known.keys() == JOBS.keys()
    for folder, manifest in known.items():
        assert content(manifest) == artifacts.fingerprint(tmp_path / folder)


def test_each_folder_is_shown_with_its_parents_once(tmp_path):
    known = study(tmp_path)
    steps = list(lineage("results/s/chain/a/small", JOBS, known))
    assert [(step.depth, step.role, step.folder.rpartition("/")[2], step.again) for step in steps] == [
        (0, "", "small", False),
        (1, "teacher", "a", False),
        (2, "model", "a-1", False),
        (2, "tokenizer", "tokenizer", False),
        (3, "dataset", "d-1", False),
        (1, "tokenizer", "tokenizer", True),
    ]
    assert all(step.content == artifacts.fingerprint(tmp_path / step.folder) for step in steps)
    assert not any(step.replaced for step in steps)


def test_a_parent_that_was_replaced_by_hand_is_told(tmp_path):
    study(tmp_path)
    (tmp_path / "results/s/sft/a/model.safetensors").write_text("another")
    swapped = artifacts.fingerprint(tmp_path / "results/s/sft/a")
    publish(tmp_path, "results/s/chain/a/small", "made of another")
    steps = list(lineage("results/s/chain/a/small", JOBS, manifests(tmp_path, JOBS)))
    assert [step.folder for step in steps if step.replaced] == ["results/s/sft/a"]
    assert steps[1].content == swapped


def test_what_has_no_manifest_has_no_content(tmp_path):
    known = manifests(tmp_path, JOBS)
    assert known == {} and fetched(JOBS, known) == []
    assert {step.content for step in lineage("results/s/chain/a/small", JOBS, known)} == {""}


def test_sources_have_their_revision_and_hashes(tmp_path):
    data, model = fetched(JOBS, study(tmp_path))
    assert (data.origin, model.origin) == ("path d.json", "hub owner/a at revision v1")
    file = tmp_path / "resources/models/a-1/model.safetensors"
    assert model.files["model.safetensors"]["sha256"] == sha256(file)
    assert json.loads((tmp_path / "resources/models/a-1/manifest.json").read_text())["files"] == model.files


def test_an_unpinned_hub_source_says_so():
    assert "unpinned" in origin(Source(hub="owner/a"))
    assert origin(Source(pypi="a==1", sha256="0" * 64, files=["*"])) == "wheel a==1"
    assert origin(Source(pypi=["a==1", "b==1"], sha256=["0" * 64] * 2, files=["*"])) == "wheels a==1, b==1"
