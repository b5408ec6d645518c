"""What every row has to pass, whichever reader it comes from."""

import json

import pytest

from colpipe.config.parts import Dataset
from colpipe.data.records import read
from colpipe.errors import ColpipeError
from tests.unit.data.test_files import write_table


def records(folder, reader="alpaca", **settings) -> list[dict]:
    return list(read(Dataset(source={"path": str(folder)}, reader=reader, **settings), folder))


def row(**fields) -> dict:
    return {"instruction": "Which?", "input": "", "output": "yes", "choices": ["yes", "no"], **fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"choices": ["yes", "no", "yes"]},
            r"the choices 'yes' and 'yes' cannot be told apart \(case, blanks and punc",
        ),
        ({"choices": ["yes", "Yes!"]}, "the choices 'yes' and 'Yes!' cannot be told apart"),
        ({"output": "Yes"}, r"output 'Yes' is none of its choices \['yes', 'no'\]; write it as the choice"),
        ({"output": "maybe"}, "output 'maybe' is none of its choices"),
        ({"choices": ["yes"]}, r"choices are \['yes'\]; give at least two"),
        ({"output": ["yes", "no"]}, "has choices and 2 outputs; one of the choices is right"),
        ({"choices": "yes, no"}, r"field 'choices' is 'yes, no' \(str\); expected list\[str\]"),
        ({"choices": ["yes", 0]}, r"field 'choices' is .* \(list\); expected list\[str\]"),
        ({"input": 5}, r"field 'input' is '5' \(int\); expected str"),
        ({"input": ["x"]}, r"field 'input' is .* \(list\); expected str"),
        ({"input": float("nan")}, r"field 'input' is 'nan' \(float\); expected str"),
        ({"output": [1, 2]}, r"field 'output' is '\[1, 2\]' \(list\); expected str or list\[str\]"),
        ({"output": []}, r"field 'output' is '\[\]' \(list\); expected one answer at least"),
        (
            {"instruction": "x\ud83d"},
            r"field 'instruction' holds half a character \(.ud83d, a lone surrogate, at 1\)",
        ),
        ({"choices": ["yes", "n\udc00"]}, "field 'choices' holds half a character"),
    ],
)
def test_a_row_that_would_be_scored_wrongly_is_refused_with_file_and_line(tmp_path, fields, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row()) + "\n" + json.dumps(row(**fields)) + "\n")
    with pytest.raises(ColpipeError, match=f"{tmp_path}/rows.jsonl:2: {message}"):
        records(tmp_path)


@pytest.mark.parametrize("lacks", [0, 7, 23])
def test_one_row_without_choices_among_others_that_have_some(tmp_path, lacks):
    rows = [row(input=str(number)) for number in range(24)]
    rows[lacks] = {"instruction": "Which?", "output": "yes"}
    write_table(tmp_path / "rows.jsonl", rows)
    with pytest.raises(
        ColpipeError, match=rf"rows.jsonl:{lacks + 1}: has no choices, and .*rows.jsonl:\d+ has; give all"
    ):
        records(tmp_path)


@pytest.mark.parametrize("choices", [["C", "C++", "C#"], ["-1", "1"], ["+", "-"], ["की", "का"]])
def test_choices_that_signs_or_marks_tell_apart_are_taken(tmp_path, choices):
    write_table(tmp_path / "rows.jsonl", [row(output=choices[1], choices=choices)])
    [found] = records(tmp_path)
    assert (found["output"], found["choices"]) == (choices[1], choices)


def test_choices_in_a_csv_file_are_a_list_in_json_and_answers_stay_text(tmp_path):
    (tmp_path / "rows.csv").write_text('instruction,output,choices\n2 + 2?,4,"[""4"", ""5""]"\n')
    [found] = records(tmp_path)
    assert (found["output"], found["choices"]) == ("4", ["4", "5"])
    (tmp_path / "rows.csv").write_text("instruction,output,choices\n2 + 2?,4,4|5\n")
    with pytest.raises(ColpipeError, match=r"rows.csv:2: field 'choices' is '4\|5' \(str\); expected list\[str\]"):
        records(tmp_path)


def test_half_a_character_in_a_document_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "good 😀"}) + "\n" + json.dumps({"text": "cut \ud83d"}) + "\n"
    )
    with pytest.raises(
        ColpipeError, match=r"a.jsonl:2: field 'text' holds half a character \(.ud83d, a lone surrogate, at 4"
    ):
        records(tmp_path, "text")


def test_documents_of_every_kind_of_file_of_a_folder(tmp_path):
    folder = tmp_path / "data"
    names = ["a.jsonl", "b.jsonl.gz", "C.JSONL", "d.ndjson", "e.tsv", "sub/f.csv.bz2", "g.jsonl.zst", "h.parquet"]
    for name in names:
        write_table(folder / name, [{"text": f"{name} {number}"} for number in range(10)])
    write_table(tmp_path / "away" / "i.jsonl", [{"text": f"i {number}"} for number in range(10)])
    (folder / "linked").symlink_to(tmp_path / "away")
    (folder / "J.TXT").write_text("\ufeffone\n\ntwo\n", encoding="utf-8")
    (folder / "sub" / "LICENSE.txt").write_text("about")
    (folder / ".fingerprint.json").write_text("{}")
    found = records(folder, "text")
    assert len(found) == 92 and len({record["id"] for record in found}) == 92
    assert [record["text"] for record in found][-2:] == ["one", "two"]
    (folder / "notes.docx").write_text("x")
    with pytest.raises(ColpipeError, match=r"the text reader does not read notes\.docx"):
        records(folder, "text")


def test_whether_a_row_is_split_by_hash_is_in_its_record(tmp_path):
    write_table(tmp_path / "test.jsonl", [{"text": str(number)} for number in range(100)])
    found = records(tmp_path, "text")
    assert {record["by_hash"] for record in found} == {True} and len({record["split"] for record in found}) == 3
