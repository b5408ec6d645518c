"""What manifests and logs say of the files of a data set, and of how rows were split."""

from collections import Counter

import pytest

from colpipe.config.parts import Dataset
from colpipe.data import file_counts
from colpipe.data.file_counts import FileCounts
from colpipe.data.records import read
from tests.unit.data.test_files import write_table


def count(folder, reader: str) -> FileCounts:
    dataset = Dataset(source={"path": str(folder)}, reader=reader)
    counts = FileCounts(dataset, folder)
    assert list(counts.counted(read(dataset, folder))) == list(read(dataset, folder))
    return counts


def test_rows_are_counted_by_file_and_split(tmp_path):
    write_table(tmp_path / "test.jsonl", [{"text": f"{number}"} for number in range(100)])
    write_table(tmp_path / "more" / "b.tsv", [{"text": "one"}])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "LICENSE").write_text("free")
    counts = count(tmp_path, "text")
    manifest = counts.manifest()
    assert manifest["ignored"] == ["LICENSE"] and manifest["split_by_hash"] == 101
    assert manifest["by_file"]["empty.jsonl"] == {} and sum(manifest["by_file"]["test.jsonl"].values()) == 100
    splits = sum(map(Counter, manifest["by_file"].values()), Counter())
    assert list(counts.lines()) == [
        "101 rows used: more/b.tsv 1, test.jsonl 100; none of empty.jsonl; no data: LICENSE",
        f"splits: train {splits['train']}, validation {splits['validation']}, test {splits['test']}"
        ": 101 rows by hash of their group; the text reader does not heed the names of test.jsonl",
    ]


def test_splits_that_files_bring_are_said_to_be_theirs(tmp_path):
    for split, rows in (("train", 3), ("test", 2)):
        article = {"id": "1", "title": "a", "summary": "b", "text": "c"}
        write_table(tmp_path / f"{split}.jsonl", [article] * rows)
    counts = count(tmp_path, "xlsum")
    assert counts.manifest()["by_file"] == {"test.jsonl": {"test": 2}, "train.jsonl": {"train": 3}}
    assert list(counts.lines())[1] == "splits: train 3, validation 0, test 2: as the reader takes them from the files"


def test_very_many_files_are_counted_by_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(file_counts, "LISTED", 3)
    for number in range(12):
        write_table(tmp_path / f"part-{number % 2}" / f"{number}.jsonl", [{"text": f"{number}"}])
    counts = count(tmp_path, "text")
    by_file = counts.manifest()["by_file"]
    assert {name: sum(counts.values()) for name, counts in by_file.items()} == {
        "part-0/*.jsonl": 6,
        "part-1/*.jsonl": 6,
    }
    assert " and 4 more" in next(counts.lines())


@pytest.mark.parametrize("name", ["validation.jsonl", "test.jsonl", "dev.jsonl"])
def test_readers_whose_files_bring_a_test_split_never_train_on_one(tmp_path, name):
    option = {"sentence": "The _ ran.", "option1": "dog", "option2": "cat", "answer": "1"}
    write_table(tmp_path / name, [{**option, "sentence": f"The _ ran {number}."} for number in range(40)])
    assert count(tmp_path, "winogrande").manifest()["by_file"] == {name: {"test": 40}}
