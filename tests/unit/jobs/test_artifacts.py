import json
import os

import pytest

from colpipe.errors import ColpipeError
from colpipe.jobs import artifacts


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model-1.safetensors").write_bytes(b"one" * 100)
    (model / "model-2.safetensors").write_bytes(b"two" * 100)
    (model / "config.json").write_text("{}")
    return model


def test_the_fingerprint_is_about_content(folder):
    before = artifacts.fingerprint(folder)
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert artifacts.fingerprint(folder) == before
    with open(folder / "model-2.safetensors", "r+b") as file:
        file.seek(150)
        file.write(b"X")
    changed = artifacts.fingerprint(folder)
    assert changed != before
    (folder / "model-2.safetensors").unlink()
    assert artifacts.fingerprint(folder) not in (before, changed)


def test_what_is_beside_the_content_does_not_count(folder):
    before = artifacts.fingerprint(folder)
    for name in ("manifest.json", "run.json", "metrics.jsonl"):
        (folder / name).write_text("{}")
    assert artifacts.fingerprint(folder) == before


def test_a_file_is_read_once(folder, monkeypatch):
    artifacts.fingerprint(folder)
    monkeypatch.setattr(artifacts, "sha256", lambda path: pytest.fail(f"{path} was read again"))
    artifacts.fingerprint(folder)


def test_missing_folders_and_empty_ones_have_no_fingerprint(tmp_path):
    (tmp_path / "empty").mkdir()
    assert artifacts.fingerprint(tmp_path / "empty") == artifacts.fingerprint(tmp_path / "none") == "missing"


def test_publish_replaces_the_whole_folder(tmp_path, folder):
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "model.safetensors").write_bytes(b"new")
    artifacts.publish(staging, folder, {"stage": "sft"}, {"host": "here"})
    assert {path.name for path in artifacts.content_files(folder)} == {"model.safetensors"}
    manifest = artifacts.read_manifest(folder)
    assert manifest["stage"] == "sft"
    assert manifest["files"]["model.safetensors"]["bytes"] == 3
    assert "host" not in manifest
    assert json.loads((folder / "run.json").read_text()) == {"host": "here"}


def test_a_lost_shard_is_named(tmp_path, folder):
    staging = tmp_path / "staging"
    os.rename(folder, staging)
    artifacts.publish(staging, folder, {}, {})
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ColpipeError, match=r"model-1.safetensors: is gone, but .*manifest.json names it"):
        artifacts.read_manifest(folder)


def test_no_manifest_and_a_broken_one(folder):
    with pytest.raises(ColpipeError, match="has not finished"):
        artifacts.read_manifest(folder)
    for damaged in (json.dumps({"stage": "sfu", "checksum": "0"}), "[]"):
        (folder / "manifest.json").write_text(damaged)
        with pytest.raises(ColpipeError, match=r"manifest.json: is damaged, or was edited; delete it"):
            artifacts.read_manifest(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ColpipeError, match="is not JSON"):
        artifacts.read_manifest(folder)


def test_a_write_that_cannot_end_is_not_begun(tmp_path):
    with pytest.raises(ColpipeError, match=r"no space left for a model: it needs 1,000,000,000,000.0 MB"):
        artifacts.require_space(tmp_path / "not" / "there", 10**18, "a model")
