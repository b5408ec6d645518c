import json

import pytest

from colpipe.data import readers
from colpipe.data.prompts import prompt
from colpipe.errors import ColpipeError
from colpipe.settings import Dataset


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def dataset(path, reader, **more):
    return Dataset(source={"path": str(path)}, reader=reader, **more)


def test_splits_are_the_same_in_every_data_set_and_have_their_share():
    names = [f"title {number}" for number in range(5000)]
    splits = [readers.split_of(name, 0.1, 0.2) for name in names]
    assert 400 < splits.count("validation") < 600
    assert 900 < splits.count("test") < 1100
    assert [readers.split_of(name, 0.1, 0.2) for name in reversed(names)] == splits[::-1]


def test_wikipedia_leads(tmp_path):
    articles = {
        "Ox": {"extract": "The ox is.", "description": "Animal"},
        "Xo": {"extract": "An xo.", "description": ""},
    }
    (tmp_path / "a.json").write_text(json.dumps(articles))
    records = list(readers.read(dataset(tmp_path, "wikipedia-leads"), tmp_path))
    assert [record["text"] for record in records if "text" in record] == ["The ox is.", "An xo."]
    rows = {(record["kind"], record["group"]): record["output"] for record in records if "kind" in record}
    assert rows == {("describe", "Ox"): "Animal", ("lead", "Ox"): "The ox is.", ("lead", "Xo"): "An xo."}
    assert len({record["split"] for record in records if record["group"] == "Ox"}) == 1


def test_boolq_keeps_training_passages_and_questions_apart_from_dev(tmp_path):
    long = "the town has a wall and a gate that were built long ago by people who came from the sea to trade salt"
    write(tmp_path, "dev.jsonl", [{"question": "is it old", "passage": long, "answer": "True"}])
    rows = [
        {"question": "was it new", "passage": f"The Town -- {long}", "label": False},  # the same passage with a title
        {"question": "Is it old?", "passage": "another passage", "label": True},  # the same question
        {"question": "who", "passage": long[:80] + " and more of it", "label": True},  # the same beginning
        {"question": "where", "passage": "an altogether different passage", "label": False},
        {"question": "hidden", "passage": "an unlabelled test row"},
    ]
    write(tmp_path, "combined.jsonl", rows)
    records = list(readers.read(dataset(tmp_path, "boolq"), tmp_path))
    assert [(record["split"], record["output"]) for record in records] == [("test", "yes"), ("train", "no")]
    assert records[1]["instruction"] == "Where? Answer yes or no."
    assert records[0]["choices"] == ["yes", "no"]


def test_alpaca_and_text(tmp_path):
    write(tmp_path, "rows.jsonl", [{"instruction": "Say hi", "input": "", "output": "hi"}])
    [record] = readers.read(dataset(tmp_path, "alpaca"), tmp_path)
    assert (record["instruction"], record["output"]) == ("Say hi", "hi")
    (tmp_path / "rows.jsonl").unlink()
    (tmp_path / "book.txt").write_text("one\nline\n\n\n\ntwo\n")
    assert [record["text"] for record in readers.read(dataset(tmp_path, "text"), tmp_path)] == ["one\nline", "two"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n', r"rows.jsonl:2: has no field 'output'"),
        ('{"instruction": \n', r"rows.jsonl:1: is not JSON"),
        ("[1]\n", r"rows.jsonl:1: has no field 'instruction'"),
        ("\n", r"the alpaca reader found no rows in \['rows.jsonl'\]"),
    ],
)
def test_rows_that_do_not_fit_are_reported_with_file_and_line(tmp_path, text, message):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ColpipeError, match=message):
        list(readers.read(dataset(tmp_path, "alpaca"), tmp_path))


def test_the_papers_templates():
    assert prompt("Do it.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nDo it.\n\n### Response:\n"
    )
    assert prompt(" Do it. ", "With this.\n") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nDo it.\n\n### Input:\nWith this."
        "\n\n### Response:\n"
    )
