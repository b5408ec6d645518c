"""The same rows from every format, and one clear error for every way to be broken."""

import csv
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from colpipe.data.files import rows_of, split_in_name, tables
from colpipe.data.records import split_of
from colpipe.errors import ColpipeError

ROWS = [
    {"question": "wer über", "answer": True, "choices": ["a", "b"], "label": 1},
    {"question": 'a "quote",\nand a line', "answer": False, "choices": [], "label": 0},
]
FIELDS = {"question": str, "answer": bool, "choices": list, "label": int}


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".csv":
            with open(path, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                texts = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
                writer.writerows(texts)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    write_table(tmp_path / name, ROWS)
    (tmp_path / "README.md").write_text("about")
    assert [row for _, row in rows_of(tmp_path, FIELDS)] == ROWS
    assert next(str(place) for place, _ in rows_of(tmp_path, FIELDS)).startswith(f"{tmp_path / name}:")


def test_what_datasets_saved(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path)
    [name] = tables(tmp_path)
    assert split_in_name(name) == "train"
    assert [row for _, row in rows_of(tmp_path, FIELDS)] == ROWS


def test_the_split_is_in_the_name_or_in_a_folder_of_the_repository():
    named = {"data/train-00000-of-00002.parquet": "train", "english/test/0000.parquet": "test", "dev.jsonl": "dev"}
    named |= {"x_val.jsonl": "validation", "auxiliary_train/a.csv": "train", "latest.json": None, "rows.jsonl": None}
    assert {name: split_in_name(name) for name in named} == named


def test_splits_by_hash_are_the_same_in_every_data_set_and_have_their_share():
    names = [f"title {number}" for number in range(5000)]
    splits = [split_of(name, 0.1, 0.2) for name in names]
    assert 400 < splits.count("validation") < 600
    assert 900 < splits.count("test") < 1100
    assert [split_of(name, 0.1, 0.2) for name in reversed(names)] == splits[::-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "a"}\n{"question"\n', r"a.jsonl:2: is not JSON"),
        ("a.jsonl", b'{"question": "a"}\n{"other": 1}\n', r"a.jsonl:2: has no field 'question'; it has \['other'\]"),
        ("a.jsonl", b"[1]\n", r"a.jsonl:1: is '\[1\]' \(list\), not a row with fields question"),
        ("a.jsonl", b'{"question": 7}\n', r"a.jsonl:1: field 'question' is '7' \(int\); expected str"),
        ("a.jsonl", b'{"question": "caf\xe9"}\n', r"a.jsonl: is not UTF-8 \(invalid continuation byte 0xe9\)"),
        ("a.json", b'{"question": "a"}', r"a.json: is .* \(dict\); expected a list of rows"),
        ("a.json", b'[{"question": "a"', r"a.json: is not JSON"),
        ("a.json", b"\xff\xfe", r"a.json: is not UTF-8"),
        ("a.csv", b"question,label\nyes\n", r"a.csv:2: has another number of values than the header"),
        ("a.csv", b"question\ncaf\xe9\n", r"a.csv: is not UTF-8"),
        ("a.csv", b"other\n1\n", r"a.csv:2: has no field 'question'"),
        ("a.parquet", b"PAR1 but no more", r"a.parquet: cannot be read \(.*\); is it cut off\? fetch it again"),
        ("a.arrow", b"\0\1\2", r"a.arrow: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ColpipeError, match=message):
        list(rows_of(tmp_path, {"question": str}))


def test_a_parquet_file_that_was_cut_off(tmp_path):
    write_table(tmp_path / "a.parquet", ROWS)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ColpipeError, match=r"a.parquet: cannot be read \(.*\); is it cut off\? fetch it again"):
        list(rows_of(tmp_path, FIELDS))
