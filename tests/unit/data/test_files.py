"""Which files hold rows, the same rows from every format, and one clear error for every way to be broken."""

import bz2
import csv
import gzip
import json
import lzma
import os
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from colpipe.data.files import check, data_files, files_in, rows_of, split_in_name, tables
from colpipe.data.formats import COMPRESSED, format_of
from colpipe.data.records import split_of
from colpipe.errors import ColpipeError

ROWS = [
    {"question": "wer über", "answer": True, "choices": ["a", "b"], "label": 1},
    {"question": 'a "quote",\nand a\tline', "answer": False, "choices": [], "label": 0},
]
FIELDS = {"question": str, "answer": bool, "choices": list[str], "label": int}


def pack(content: bytes, suffix: str) -> bytes:
    """Content as a file of this suffix has it."""
    if suffix == ".zst":
        return pyarrow.compress(content, "zstd", asbytes=True)
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(suffix, bytes)(content)


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows in the format that the file's name says, compressed as it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, packed = format_of(path.name)
    match kind:
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".arrow":
            table = pyarrow.Table.from_pylist(rows)
            with pyarrow.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table)
        case ".csv" | ".tsv":
            with open(path, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="," if kind == ".csv" else "\t")
                writer.writeheader()
                texts = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
                writer.writerows(texts)
    path.write_bytes(pack(path.read_bytes(), packed))


FORMATS = ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "rows.tsv", "rows.ndjson", "rows.arrow", "ROWS.JSONL"]
PACKED = [f"rows.jsonl{suffix}" for suffix in COMPRESSED]
PACKED += ["Rows.CSV.GZ", "rows.json.xz", "rows.parquet.gz", "rows.arrow.zst", "rows.tsv.bz2"]


@pytest.mark.parametrize("name", [*FORMATS, *PACKED])
def test_every_format_gives_the_same_rows(tmp_path, name):
    write_table(tmp_path / name, ROWS)
    (tmp_path / "README.md").write_text("about")
    assert [row for _, row in rows_of(tmp_path, FIELDS)] == ROWS
    assert next(str(place) for place, _ in rows_of(tmp_path, FIELDS)).startswith(f"{tmp_path / name}:")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"])
@pytest.mark.parametrize("change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_byte_order_marks_and_line_ends_of_windows_change_nothing(tmp_path, name, change):
    rows = [{"question": "ä"}, {"question": "b"}]
    write_table(tmp_path / name, rows)
    content = (tmp_path / name).read_bytes().replace(b"\r\n", b"\n")
    (tmp_path / name).write_bytes(change(content))
    assert [row for _, row in rows_of(tmp_path, {"question": str})] == rows


def test_what_datasets_saved(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path)
    [name] = tables(tmp_path)
    assert split_in_name(name) == "train"
    assert [row for _, row in rows_of(tmp_path, FIELDS)] == ROWS


def test_linked_files_and_folders_are_listed_once_and_hidden_ones_apart(tmp_path):
    (tmp_path / "away" / "deep").mkdir(parents=True)
    (tmp_path / "away" / "deep" / "b.jsonl").write_text("{}")
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jsonl").write_text("{}")
    (folder / "linked").symlink_to(tmp_path / "away")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "linked-again").symlink_to(tmp_path / "away")
    (folder / "file.jsonl").symlink_to(tmp_path / "away" / "deep" / "b.jsonl")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.jsonl").write_text("{}")
    (folder / "sub" / ".fingerprint.json").write_text("{}")
    visible, hidden = files_in(folder)
    assert visible == ["file.jsonl", "linked/deep/b.jsonl", "sub/a.jsonl"]
    assert hidden == [".git", "sub/.fingerprint.json"]


def test_what_is_published_beside_rows_is_known(tmp_path):
    about = [
        "README.md",
        "LICENSE",
        "LICENSE-MIT",
        "licence.txt",
        "dataset_info.json",
        "_SUCCESS",
        "a.jsonl.md5",
        "CITATION.cff",
    ]
    data = ["a.jsonl", "notice.jsonl", "sub/b.CSV.gz", "authors.json"]
    for name in [*about, *data, "manifest.json", "metrics.jsonl"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert data_files(tmp_path, "alpaca") == (sorted(data), sorted(about))  # those of a result are not worth a word


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "essay.docx",
            r"the alpaca reader does not read essay.docx \(it reads .jsonl, .*, also with .gz, .bz2, .xz, .zst\)",
        ),
        ("a.zip", "does not read a.zip"),
        ("a.tar.gz", "does not read a.tar.gz"),
        ("a.jsonl~", "does not read a.jsonl~"),
        ("sub/notes.txt", "does not read sub/notes.txt"),
        ("train.gz", "does not read train.gz"),
        ("rows.jsonl.gz", "rows.jsonl and rows.jsonl.gz seem to be one file, once compressed"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_by_name(tmp_path, name, message):
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    with pytest.raises(ColpipeError, match=message):
        data_files(tmp_path, "alpaca")


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text("{}")
    with pytest.raises(ColpipeError, match=r"the name of caf\\xe9.jsonl is not UTF-8; rename it"):
        data_files(tmp_path, "alpaca")


def test_a_link_to_a_file_that_is_gone_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(ColpipeError, match=r"rows.jsonl: is no file, or a link to one that is gone"):
        data_files(tmp_path, "alpaca")


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
        ("a.json", b'{"question": "a"}\n{"question": "b"}', r"a.json: is not JSON: Extra data.*; name it .jsonl if it"),
        (
            "a.jsonl",
            '{"question": "a"}'.encode("utf-16"),
            r"a.jsonl: is not UTF-8 but UTF-16 or UTF-32; convert it first",
        ),
        ("a.csv", "question\na\n".encode("utf-16-le"), r"a.csv: holds NUL bytes: it is not UTF-8, or no text"),
        ("a.jsonl", b'{"question": "a", "question": "b"}', r"a.jsonl:1: is not JSON: 'question' is there twice"),
        (
            "a.jsonl",
            b'{"question": "x\\ud83d"}',
            r"a.jsonl:1: field 'question' holds half a character \(.ud83d, a lone",
        ),
        ("a.jsonl", b'{"question": "x\\u0000"}', r"a.jsonl:1: field 'question' holds a NUL character \(at 1\)"),
        (
            "a.csv",
            b"question\n" + b"x" * 9000 + b"\0\n",
            r"a.csv:2: field 'question' holds a NUL character \(at 9000\)",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"question": "a"}\n' * 99, mtime=0)[:-9],
            r"a.jsonl.gz: cannot be read \(.*\); is it cut off",
        ),
        ("a.jsonl.zst", b"no frame at all", r"a.jsonl.zst: cannot be read \(.*\); is it cut off"),
        ("a.jsonl.gz", b'{"question": "a"}\n', r"a.jsonl.gz: cannot be read \(Not a gzipped file"),
        (
            "a.csv",
            b"question;label\nyes;1\n",
            r"a.csv:1: columns are separated by ',' here; the header is 'question;label'",
        ),
        ("a.csv", b"question,question\na,b\n", r"a.csv:1: the column 'question' is there twice"),
        ("a.csv", b"Is it?,yes\nWas it?,no\n", r"a.csv:1: the header has no field 'question'; it has \['Is it\?'"),
        ("a.csv", b"question,label\nyes\n", r"a.csv:2: has another number of values than the header"),
        ("a.csv", b"question\ncaf\xe9\n", r"a.csv: is not UTF-8"),
        ("a.csv", b"other\n1\n", r"a.csv:1: the header has no field 'question'; it has \['other'\]"),
        ("a.parquet", b"PAR1 but no more", r"a.parquet: cannot be read \(.*\); is it cut off\? fetch it again"),
        ("a.arrow", b"\0\1\2", r"a.arrow: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ColpipeError, match=message):
        list(rows_of(tmp_path, {"question": str}))


@pytest.mark.parametrize("name", ["my rows.jsonl", "my rows.jsonl.gz"])
def test_the_line_that_is_not_utf8_is_named_wherever_it_is(tmp_path, name):
    """Of a file that is longer than the buffers it is read by."""
    content = b'{"question": "a"}\n' * 20_000 + b'{"question": "caf\xe9"}\n' + b'{"question": "a"}\n' * 9
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ColpipeError) as refusal:
        list(rows_of(tmp_path, {"question": str}))
    command = f"iconv -f latin1 -t utf-8 '{tmp_path / 'my rows.jsonl'}' > NEW"  # of what was unpacked
    assert str(refusal.value) == (
        f"{tmp_path / name}: is not UTF-8 (invalid continuation byte 0xe9) in line 20,001; convert it first: {command}"
    )


def test_a_parquet_file_that_was_cut_off(tmp_path):
    write_table(tmp_path / "a.parquet", ROWS)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ColpipeError, match=r"a.parquet: cannot be read \(.*\); is it cut off\? fetch it again"):
        list(rows_of(tmp_path, FIELDS))


def test_a_csv_file_gives_text_where_text_is_wanted_and_json_elsewhere(tmp_path):
    content = 'number,either,list,kept\n4,5,"[""a"", ""b""]",\n'
    (tmp_path / "a.csv").write_text(content)
    [(_, row)] = rows_of(
        tmp_path, {"number": str, "either": (str, list[str])}, optional={"list": list[str], "kept": int}
    )
    assert row == {"number": "4", "either": "5", "list": ["a", "b"], "kept": None}


def test_a_csv_field_may_hold_a_document(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "long " * 50_000 + "\n")
    assert [len(row["text"]) for _, row in rows_of(tmp_path, {"text": str})] == [250_000]


def test_a_csv_file_without_header_has_the_columns_that_it_is_known_for(tmp_path):
    (tmp_path / "a.csv").write_text("1 + 1?,2\n2 + 2?,4\n")
    rows = [(place.number, row) for place, row in rows_of(tmp_path, {"q": str}, columns=("q", "a"))]
    assert rows == [(1, {"q": "1 + 1?", "a": "2"}), (2, {"q": "2 + 2?", "a": "4"})]
    (tmp_path / "a.csv").write_text("q,a\n1 + 1?,2\n")
    assert [row for _, row in rows_of(tmp_path, {"q": str}, columns=("q", "a"))] == [{"q": "1 + 1?", "a": "2"}]


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (5, str, r"'5' \(int\); expected str"),
        (float("nan"), str, r"'nan' \(float\); expected str"),
        (["x"], str, r".* \(list\); expected str"),
        ([1, 2], (str, list[str]), r"'\[1, 2\]' \(list\); expected str or list\[str\]"),
        ("yes, no", list[str], r"'yes, no' \(str\); expected list\[str\]"),
        (True, int, r"'True' \(bool\); expected int"),
        (["a", "b\udc00"], list[str], r"holds half a character \(.udc00, a lone surrogate, at 1\)"),
    ],
)
def test_a_field_of_another_type_is_refused_whether_it_has_to_be_there_or_not(value, kind, shown):
    for fields, optional in (({"x": kind}, {}), ({}, {"x": kind})):
        with pytest.raises(ColpipeError, match=f"here: field 'x' (is )?{shown}"):
            check("here", {"x": value}, fields, optional)
    check("here", {"x": None}, {}, {"x": kind})
    check("here", {}, {}, {"x": kind})


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ColpipeError, match=f"{tmp_path}: cannot be read: Permission denied"):
        files_in(tmp_path)
