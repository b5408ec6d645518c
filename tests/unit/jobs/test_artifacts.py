import json
import os
import shutil
import time

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
    (folder / "manifest.json").write_text("{}")
    before = artifacts.fingerprint(folder)  # too fresh to be remembered: it might change within a tick of the clock
    monkeypatch.setattr(artifacts, "TICK", 0)
    assert artifacts.fingerprint(folder) == before
    artifacts._hashed.clear()  # as another process finds it
    monkeypatch.setattr(artifacts, "sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert artifacts.fingerprint(folder) == before


@pytest.mark.parametrize("how", ["written", "replaced", "moved there with its time"])
def test_other_bytes_of_the_same_size_and_time_are_seen(folder, tmp_path, monkeypatch, how):
    monkeypatch.setattr(artifacts, "TICK", 0)
    (folder / "manifest.json").write_text("{}")
    path, other = folder / "model-1.safetensors", tmp_path / "other"
    before, status = artifacts.fingerprint(folder), path.stat()
    time.sleep(0.02)  # a tick of the file system's clock, for which `TICK` makes up otherwise
    if how == "written":
        path.write_bytes(b"two" * 100)
    else:
        other.write_bytes(b"two" * 100)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        shutil.copy2(other, path) if how == "replaced" else os.replace(other, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    artifacts._hashed.clear()
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert artifacts.fingerprint(folder) != before


def test_nothing_is_written_into_a_folder_that_is_no_result(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "TICK", 0)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    artifacts.fingerprint(folder)
    artifacts.fingerprint(folder, tmp_path / "store.json")
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before
    assert set(json.loads((tmp_path / "store.json").read_text())) == {path.name for path in folder.iterdir()}


def test_links_to_folders_are_content_and_circles_are_not_followed(folder, tmp_path):
    before = artifacts.fingerprint(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "more.bin").write_bytes(b"more")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    names = [path.relative_to(folder).as_posix() for path in artifacts.content_files(folder)]
    assert names == ["config.json", "linked/more.bin", "model-1.safetensors", "model-2.safetensors"]
    assert artifacts.fingerprint(folder) != before


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


def test_a_full_disk_costs_nothing_that_was_there(tmp_path, folder, monkeypatch):
    staging = tmp_path / "staging"
    shutil.copytree(folder, staging)
    artifacts.publish(staging, folder, {"stage": "sft"}, {})
    before = {path.name: path.read_bytes() for path in artifacts.content_files(folder)}
    staging.mkdir()
    (staging / "model.safetensors").write_bytes(b"new")

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        artifacts.publish(staging, folder, {"stage": "sft"}, {})
    assert {path.name: path.read_bytes() for path in artifacts.content_files(folder)} == before
    assert artifacts.read_manifest(folder)["stage"] == "sft"


def test_a_result_is_valid_until_its_successor_is_finished(tmp_path, folder):
    staging = tmp_path / "staging"
    shutil.copytree(folder, staging)
    artifacts.publish(staging, folder, {"stage": "sft"}, {})
    before = artifacts.read_manifest(folder)
    artifacts.supersede(folder)
    (folder / "manifest.json").unlink()  # as Snakemake does before the job starts, which then fails
    assert artifacts.restore(folder) and artifacts.read_manifest(folder) == before
    assert not artifacts.restore(folder)
    staging.mkdir()
    (staging / "model.safetensors").write_bytes(b"new")
    artifacts.publish(staging, folder, {"stage": "sft"}, {})
    assert not (folder / artifacts.SUPERSEDED).exists()
    assert list(artifacts.read_manifest(folder)["files"]) == ["model.safetensors"]


def publish_one(tmp_path, folder, name: str = "model.safetensors") -> list[str]:
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / name).parent.mkdir(exist_ok=True)
    (staging / name).write_bytes(b"new")
    return artifacts.publish(staging, folder, {"stage": "sft"}, {})


def test_what_is_somebody_elses_is_set_aside_and_nothing_is_deleted_through_a_link(tmp_path):
    folder, precious = tmp_path / "out", tmp_path / "precious"
    publish_one(tmp_path, folder, "old.safetensors")
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    (folder / "mine").symlink_to(precious)
    (folder / "notes.txt").write_text("mine")
    for number in (1, 2):
        aside = publish_one(tmp_path, folder, "mine/model.safetensors")
        assert (precious / "thesis.txt").read_text() == "years"
        assert not (folder / "mine").is_symlink() and not (folder / "old.safetensors").exists()
        assert aside == ([] if number == 2 else [f"{folder}/.set-aside-1/{name}" for name in ("notes.txt", "mine")])
    assert (folder / ".set-aside-1" / "notes.txt").read_text() == "mine"
    assert list(artifacts.read_manifest(folder)["files"]) == ["mine/model.safetensors"]


def test_a_result_whose_manifest_was_deleted_is_not_kept_beside_its_successor(tmp_path):
    folder = tmp_path / "out"
    publish_one(tmp_path, folder, "old.safetensors")
    (folder / "manifest.json").unlink()
    assert publish_one(tmp_path, folder) == [] and not (folder / "old.safetensors").exists()


def test_a_result_on_another_file_system(tmp_path, monkeypatch):
    """As a link to a larger disk makes it."""
    monkeypatch.setattr(
        artifacts, "_on_file_system_of", lambda folder, staging: shutil.move(staging, folder / ".staging")
    )
    publish_one(tmp_path, tmp_path / "out")
    assert list(artifacts.read_manifest(tmp_path / "out")["files"]) == ["model.safetensors"]
    assert not (tmp_path / "out" / ".staging").exists()


def test_a_second_name_of_a_result_that_is_no_longer_whole_is_left_alone(tmp_path, folder):
    publish_one(tmp_path, folder)
    assert artifacts.supersede(folder) and not artifacts.supersede(folder)
    (folder / "manifest.json").unlink()
    (folder / "model.safetensors").unlink()
    assert not artifacts.restore(folder) and not (folder / "manifest.json").exists()


def test_a_number_that_json_cannot_say_is_refused(tmp_path):
    artifacts.write_json(tmp_path / "loss.json", {"loss": 1.5})
    with pytest.raises(ColpipeError, match=r"loss.json: cannot be written: Out of range float"):
        artifacts.write_json(tmp_path / "loss.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "loss.json").read_text()) == {"loss": 1.5}


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
