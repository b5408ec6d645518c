"""Markers of complete states: what is cut short, changed, missing or foreign is not valid; what only grew beside it is."""

import pytest

from colpipe.jobs.state import discard, is_complete, is_valid, mark_complete, read_record, write_record


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "checkpoint-3"
    (folder / "part").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "part" / "more.bin").write_bytes(b"more")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    mark_complete(folder, tmp_path / "metrics.jsonl")
    return folder


def test_a_folder_that_nobody_touched_is_sound(state):
    assert is_complete(state) and is_valid(state)
    with open(state.parent / "metrics.jsonl", "a") as file:
        file.write("{}\n")
    (state / "new").write_text("not part of what was marked")
    assert is_valid(state)


@pytest.mark.parametrize("name", ["weights.bin", "part/more.bin", "../metrics.jsonl", "complete"])
def test_every_damage_is_seen(state, name):
    path = state / name
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b"", None):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        # The last byte of the marker is a line break: JSON without it is the same.
        assert is_valid(state) == (name == "complete" and damaged == content[:-1])
    path.write_bytes(content)
    assert is_valid(state)
    path.write_bytes(content + b"x")
    assert is_valid(state) == (name == "../metrics.jsonl")


def test_a_file(tmp_path):
    path = tmp_path / "best-3.pt"
    assert not is_complete(path) and not is_valid(path)
    path.write_bytes(b"weights")
    assert not is_valid(path)
    mark_complete(path)
    assert is_valid(path)
    discard(path)
    assert not list(tmp_path.iterdir())


def test_records(tmp_path):
    path, value = tmp_path / "record.json", [{"b": [1, None], "a": 0.1}, "ü"]
    assert read_record(path) is None
    write_record(path, value)
    assert read_record(path) == value
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert read_record(path) in (None, value)
        path.write_bytes(content[:position])
        assert read_record(path) in (None, value)
