"""The stage that stages data: what it takes, what it says, and that it leaves sources alone."""

import json
from pathlib import Path

from colpipe.config.parts import Dataset, Runtime, Source
from colpipe.data.records import read
from colpipe.stages import fetch_dataset
from tests.conftest import open_job


def stamps(folder: Path) -> dict:
    found = {path.name: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {name: (status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found.items()}


def test_a_source_is_staged_and_left_alone(tmp_path, capfd):
    source = tmp_path / "published"
    (tmp_path / "away").mkdir()
    source.mkdir()
    (tmp_path / "away" / "b.jsonl").write_text(json.dumps({"text": "two"}) + "\n")
    (source / "a.jsonl").write_text(json.dumps({"text": "one"}) + "\n")
    (source / "linked").symlink_to(tmp_path / "away")
    for name in (".fingerprint.json", "metrics.jsonl", "run.json"):
        (source / name).write_text("{}")
    before = stamps(source)
    job = open_job("fetch_dataset", tmp_path / "out", tmp_path / "work", Source(path=str(source)), Runtime(), {}, 0)
    try:
        fetch_dataset.main(job)
    finally:
        job.close()
    assert stamps(source) == before
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert list(manifest["files"]) == ["a.jsonl", "linked/b.jsonl"]
    assert "not taken, hidden or a result's own: .fingerprint.json, metrics.jsonl, run.json" in capfd.readouterr().err
    dataset = Dataset(source={"path": str(source)}, reader="text")
    assert [record["text"] for record in read(dataset, tmp_path / "out")] == ["one", "two"]
