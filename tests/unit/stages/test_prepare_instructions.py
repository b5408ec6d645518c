"""The stage that prepares prompts: splits, what is too long, empty or left out, and sets that have only a test split."""

import json

import pytest

from colpipe.config.parts import Runtime
from colpipe.data.prompts import prompt
from colpipe.data.rows import read_rows
from colpipe.data.tokens import Rows
from colpipe.errors import ColpipeError
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.stages import prepare_instructions
from tests.conftest import WORDS, make_beginning_tokenizer, make_tokenizer, open_job
from tests.unit.data.test_files import write_table


@pytest.fixture
def prepared(tmp_path):
    """Prepare instructions of rows in files; gives the result's folder and its manifest."""
    make_tokenizer(WORDS, 300).save_pretrained(tmp_path / "tokenizer")

    def prepare(reader: str, files: dict[str, list[dict]], prompts: str = "paper", **settings):
        for name, rows in files.items():
            write_table(tmp_path / "staged" / name, rows)
        chosen = prepare_instructions.Settings.model_validate(
            {
                "dataset": {"source": {"path": "."}, "reader": reader},
                "instructions": {"dataset": "any", "max_tokens": 400, **settings},
                "prompts": prompts,
            }
        )
        parents = {"dataset": tmp_path / "staged", "tokenizer": tmp_path / "tokenizer"}
        job = open_job("prepare_instructions", tmp_path / "out", tmp_path / "work", chosen, Runtime(), parents, 0)
        try:
            prepare_instructions.main(job)
        finally:
            job.close()
        return tmp_path / "out", json.loads((tmp_path / "out" / "manifest.json").read_text())

    return prepare


def winogrande(number: int, answer: str) -> dict:
    return {
        "sentence": f"The old _ has {number} of it.",
        "option1": "city",
        "option2": f"river {number}",
        "answer": answer,
    }


def test_splits_lengths_and_what_was_left_out_are_in_the_manifest(prepared, capfd):
    train = [winogrande(number, "12"[number % 2]) for number in range(60)]
    train.append({**winogrande(99, "1"), "sentence": "old " * 500 + "_"})
    files = {
        "train.jsonl": train,
        "validation.jsonl": [winogrande(number, "2") for number in range(100, 105)],
        "test.jsonl": [winogrande(7, ""), winogrande(8, "")],
    }
    folder, manifest = prepared("winogrande", files, train_rows=40)
    assert manifest["counts"]["test"] == {"rows": 5, "read": 5, "too_long": 0}
    read = {split: counts["read"] for split, counts in manifest["counts"].items()}
    assert read["train"] + read["validation"] == 61 and read["validation"] > 0
    assert manifest["counts"]["train"]["rows"] == 40
    assert manifest["left_out"] == {"hidden label": 2}
    assert "2 rows left out: hidden label (the first: " in capfd.readouterr().err
    test, trained = read_rows(folder, "test"), read_rows(folder, "train")
    assert all("likelihood" in row for row in test) and not any("likelihood" in row for row in trained)
    assert {row["completion"] for row in test} == {f"river {number}" for number in range(100, 105)}


def test_last_words_are_made_of_the_documents_for_testing(prepared):
    """One row each, of the test split only."""
    before = "A dog ran. " + " ".join(f"w{n}" for n in range(40))
    texts = [f"{before} number {n} saw the other small number. Then it left." for n in range(400)]
    files = {"a.jsonl": [{"text": text} for text in [*texts, "Too short."]]}
    folder, manifest = prepared("text", files, kinds=["last-word"])
    counts = {split: counts["rows"] for split, counts in manifest["counts"].items()}
    assert counts["train"] == counts["validation"] == 0 < counts["test"] < 40
    rows = read_rows(folder, "test")
    assert {row["output"] for row in rows} == {"number"} and all("choices" not in row for row in rows)
    assert all(row["likelihood"]["continuations"] == [" number"] for row in rows)
    assert all(row["likelihood"]["contexts"] == [row["input"]] for row in rows)
    assert all(row["input"].endswith("the other small") for row in rows)
    made = {f"{row['input']} number. Then it left." for row in rows}
    assert made < set(texts) and len(made) == len(rows)
    fewer, _ = prepared("text", {}, kinds=["last-word"], test_rows=5)
    assert [row["id"] for row in read_rows(fewer, "test")] == [row["id"] for row in rows][:5]


def test_documents_without_a_last_word_are_counted(prepared):
    files = {"a.jsonl": [{"text": f"One word {n}."} for n in range(200)]}
    files["b.jsonl"] = [{"text": f"{'word ' * 40}{n} and one more word."} for n in range(200)]
    _, manifest = prepared("text", files, kinds=["last-word"], max_tokens=2000)
    [(reason, count)] = manifest["left_out"].items()
    assert reason == "no sentence whose last word can be guessed" and 0 < count < 20
    with pytest.raises(ColpipeError, match=r"has no rows of kind \['last-word'\]"):
        prepared("text", {"b.jsonl": [{"text": "Nothing."}]}, kinds=["last-word"])


def test_rows_that_are_kept_are_counted_by_file(prepared, capfd):
    row = {"instruction": "Do it.", "output": "done"}
    rows = [{**row, "instruction": f"Do {number}."} for number in range(60)]
    files = {"test.jsonl": rows[:50], "more.csv.gz": rows[50:59], "long.jsonl": [{**row, "instruction": "old " * 500}]}
    _, manifest = prepared("alpaca", files)
    by_file = {name: sum(counts.values()) for name, counts in manifest["by_file"].items()}
    assert by_file == {"long.jsonl": 0, "more.csv.gz": 9, "test.jsonl": 50} and manifest["split_by_hash"] == 59
    said = capfd.readouterr().err
    assert "59 rows used: more.csv.gz 9, test.jsonl 50; none of long.jsonl" in said
    assert "59 rows by hash of their group; the alpaca reader does not heed the names of test.jsonl" in said


def test_a_set_that_is_only_for_testing(prepared):
    rows = [{"instruction": f"Do {n}.", "instances": [{"input": "", "output": "done"}]} for n in range(4)]
    folder, manifest = prepared("unnatural-instructions", {"core_data.jsonl": rows})
    assert {split: counts["rows"] for split, counts in manifest["counts"].items()} == {
        "train": 0,
        "validation": 0,
        "test": 4,
    }
    assert len(read_rows(folder, "test")) == 4
    with pytest.raises(ColpipeError, match="the train split has no rows"):
        read_rows(folder, "train")
    assert read_rows(folder, "train", needed=False) == []


def test_nothing_that_fits_is_an_error(prepared):
    rows = [{"instruction": "old " * 500, "instances": [{"input": "", "output": "done"}]}]
    with pytest.raises(
        ColpipeError, match=r"the test split has no rows \(1 were read, 1 are longer than max_tokens 400\)"
    ):
        prepared("unnatural-instructions", {"core_data.jsonl": rows})


def test_only_hidden_labels_are_an_error(prepared):
    with pytest.raises(ColpipeError, match=r"no instructions; the reader left out \{'hidden label': 1\}"):
        prepared("winogrande", {"test.jsonl": [winogrande(7, "")]})


def test_a_kind_that_the_data_set_does_not_have(prepared):
    rows = [{"instruction": "a", "context": "", "response": "b", "category": "open_qa"}]
    with pytest.raises(ColpipeError, match=r"has no rows of kind \['closed_qa'\]; it has \['open_qa'\]"):
        prepared("dolly", {"rows.jsonl": rows}, kinds=["closed_qa"])


def test_rows_without_an_answer_are_left_out_and_counted(prepared, capfd):
    answers = ["done", "", " \n", ["", "second"], ["", " "], "done"]
    rows = [{"instruction": f"Do {n}.", "input": "", "output": answers[n % 6]} for n in range(60)]
    folder, manifest = prepared("alpaca", {"rows.jsonl": rows})
    assert manifest["left_out"] == {"empty answer": 30}
    kept = [row for split in ("train", "validation", "test") for row in read_rows(folder, split, needed=False)]
    assert sum(counts["read"] for counts in manifest["counts"].values()) == len(kept) == 30
    assert {(row["output"], *row.get("references", ())) for row in kept} == {("done",), ("second", "second")}
    assert f"30 rows left out: empty answer (the first: {folder.parent}/staged/rows.jsonl:2)" in capfd.readouterr().err


def test_rows_that_ask_nothing_are_left_out_and_counted(prepared):
    rows = [{"instruction": ("a", " ")[n % 2], "input": ("", "b")[n // 2 % 2], "output": "c"} for n in range(40)]
    _, manifest = prepared("alpaca", {"rows.jsonl": rows})
    assert manifest["left_out"] == {"empty instruction": 10}
    assert sum(counts["rows"] for counts in manifest["counts"].values()) == 30


def test_only_empty_answers_are_an_error(prepared):
    rows = [{"instruction": f"Do {n}.", "input": "", "output": " "} for n in range(6)]
    with pytest.raises(ColpipeError, match=r"no instructions; the reader left out \{'empty answer': 6\}"):
        prepared("alpaca", {"rows.jsonl": rows})


def test_the_longest_row_is_max_tokens_long_with_its_end(prepared):
    rows = [{"instruction": "a", "input": "", "output": "b" * count} for count in range(1, 30)]
    folder, manifest = prepared("alpaca", {"rows.jsonl": rows}, max_tokens=150)
    tokenizer = load_tokenizer(folder.parent / "tokenizer")
    kept = [row for split in ("train", "validation", "test") for row in read_rows(folder, split, needed=False)]
    assert 0 < len(kept) == len(Rows(kept, tokenizer, 150)) < 29
    lengths = [len(each["input_ids"]) for each in Rows(kept, tokenizer, 150)]
    assert max(lengths) == 150 and sum(counts["too_long"] for counts in manifest["counts"].values()) == 29 - len(kept)


@pytest.mark.parametrize("written", ["", "{{ bos_token }}"])
@pytest.mark.parametrize("prompts", ["paper", "chat"])
def test_rows_are_as_long_as_they_are_read_behind_their_begin_token(prompts, written, prepared, tmp_path):
    """The longest row that max_tokens lets through is the longest that a training gets; a chat has the token once."""
    tokenizer = make_beginning_tokenizer(WORDS, 300)
    tokenizer.chat_template = written + "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    asked = prompt("old") if prompts == "paper" else "old"
    longest = len(tokenizer(asked)["input_ids"]) + 15 + 1  # the begin token is counted there
    rows = [{"instruction": "old", "input": "", "output": "b" * count} for count in range(1, 30)]
    folder, _ = prepared("alpaca", {"rows.jsonl": rows}, prompts, max_tokens=longest)
    kept = [row for split in ("train", "validation", "test") for row in read_rows(folder, split, needed=False)]
    found = [row["input_ids"].tolist() for row in Rows(kept, load_tokenizer(tmp_path / "tokenizer"), longest)]
    assert len(kept) == len(found) == 15 and max(map(len, found)) == longest
    assert all(ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id for ids in found)
    if prompts == "chat":
        assert all(row["prompt_ids"] == tokenizer("old")["input_ids"] for row in kept)
