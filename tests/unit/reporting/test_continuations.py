"""What models write: for cards and `colpipe show`, and on the page."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from colpipe.pipeline.plan import Plan
from colpipe.reporting.continuations import Written, block, one_line, read_texts, read_written, seen, two_lines
from colpipe.reporting.passages import how, passages, telling


def write(scores: Path, *texts: dict, loss: float | None = None) -> None:
    """Continuations beside the scores of a model."""
    scores.mkdir(parents=True, exist_ok=True)
    (scores / "continuations.json").write_text(json.dumps(texts))
    if not (scores / "scores.json").exists():
        (scores / "scores.json").write_text(json.dumps({"wiki": {"loss": loss}} if loss else {}))


def text(prompt: str, greedy: str, sampled: str = "") -> dict:
    return {"prompt": prompt, "greedy": greedy, "sampled": sampled}


def test_only_characters_that_can_be_seen_are_shown():
    assert seen("a\tb\r\nc\x1b[31m\u202e!\x00\u00e9 \U0001f600\u200dz") == "a b\nc�[31m�!�é 😀\u200dz"
    assert one_line(" two\n\n  lines  and more ") == "two ⏎ lines and more" and one_line(" \n") == "(nothing)"


def test_what_was_not_continued_is_not_there(tmp_path):
    assert read_texts(tmp_path) == [] and read_written(tmp_path) == []
    write(tmp_path / "scores/sft/a", text("It is", " red\x07"), loss=2.0)
    (tmp_path / "scores/chain/a/b").mkdir(parents=True)
    assert read_texts(tmp_path / "scores/sft/a") == [text("It is", " red�")]
    assert read_written(tmp_path, ["chain/a/b", "sft/a"]) == [Written("sft/a", 2.0, [text("It is", " red�")])]


def test_a_block_of_a_card_has_both_models_and_nothing_in_it_ends_it():
    own = [text("It is", " ```\n# red", "blue " * 30), {"prompt": "Long", "problem": "too long"}]
    found = block(own, [text("It is", "", " green"), text("other", "x")], "its ancestor").splitlines()
    assert found[0] == "````text" and found[-1] == "````" and "````" not in "".join(found[1:-1])
    assert found[1:5] == ["It is …", "", "this model, greedy:", "    ``` ⏎ # red"]
    start = found.index("this model, sampled:")
    assert " ".join(line.strip() for line in found[start + 1 : start + 3]) == ("blue " * 30).strip()
    assert max(map(len, found)) <= 100
    assert found[start + 3 :] == [
        *("its ancestor, greedy:", "    (nothing)", "its ancestor, sampled:", "    green", ""),
        *("Long …", "", "this model:", "    not continued: too long", "````"),
    ]


def test_two_lines_are_of_the_ancestor_and_the_best_desnet(tmp_path):
    write(tmp_path / "scores/sft/big", {"prompt": "A", "problem": "no"}, text("It is", " red\nand blue"), loss=2.0)
    write(tmp_path / "scores/desnets/a/90M/fit/0", text("A", "a"), text("It is", " worse"), loss=3.5)
    write(tmp_path / "scores/desnets/a/90M/fit/200k", text("A", "a"), text("It is", " " + "word " * 40), loss=3.2)
    lines = two_lines(tmp_path, 60)
    assert lines[:2] == ['From "It is", greedily:', f"    {'big (ancestor)':22}  red ⏎ and blue"]
    assert lines[2] == "    90M (fit, 200k tokens)  word word word word word word …"
    assert len(lines) == 3 and max(map(len, lines)) <= 60
    assert two_lines(tmp_path / "nowhere", 60) == []


def test_two_lines_of_a_bridge_and_a_line_without_an_ancestor(tmp_path):
    write(tmp_path / "scores/desnets/scratch/90M/rand/0", text("It is", " x"))
    assert two_lines(tmp_path, 60) == ['From "It is", greedily:', "    90M (rand, 0 tokens)  x"]
    write(tmp_path / "scores/bridges/a", text("It is", " y"))
    assert two_lines(tmp_path, 60)[1] == f"    {'a (bridge)':20}  y"
    write(tmp_path / "scores/bridges/a", text("Other", " y"))
    assert two_lines(tmp_path, 60) == []  # nothing that both continue


def test_two_lines_are_of_a_desnet_and_of_its_own_ancestor(tmp_path):
    for name, loss in (("a", 2.0), ("b", 3.0)):
        write(tmp_path / f"scores/bridges/{name}", text("It is", f" {name}"), loss=2.0)
        write(tmp_path / f"scores/desnets/{name}/90M/fit/0", text("It is", f" of {name}"), loss=5 - loss)
    write(tmp_path / "scores/desnets/scratch/90M/rand/0", text("It is", " x"), loss=1.0)
    assert [line.split()[-1] for line in two_lines(tmp_path, 60)[1:]] == ["b", "b"]
    for name in ("a", "b"):
        (tmp_path / f"scores/bridges/{name}").rename(tmp_path / f"scores/{name}")
        write(tmp_path / f"scores/sft/{name}", text("It is", f" {name}"), loss=2.0)
    assert two_lines(tmp_path, 60)[1:] == ["    90M (fit, 0 tokens)  of b"]  # paths do not say which of them


def test_of_many_models_those_that_tell_most_are_shown_at_once():
    desnets = [
        Written(f"desnets/a/{size}/{init}/0", loss, []) for size in range(30) for init, loss in (("x", 4.0), ("y", 3.0))
    ]
    written = [Written("bridges/a", 2.0, []), Written("chain/a/large", 2.5, []), *desnets]
    found = [each.path for each in telling(written)]
    assert len(found) == 12 and found[0] == "bridges/a" and all(path.endswith("/y/0") for path in found[1:])
    sizes = [int(path.split("/")[2]) for path in found[1:]]
    assert (sizes[0], sizes[-1]) == (0, 29) and {b - a for a, b in pairwise(sizes)} == {2, 3}
    assert [each.path for each in telling(written[:4])] == ["bridges/a", "desnets/a/0/y/0"]


@pytest.fixture
def told(results):
    """The study of `results`, where all its models continue two texts."""
    study, folder = results
    for number, path in enumerate(Plan(study).models):
        second = (
            {"prompt": "B <b>", "problem": "too long"}
            if path.startswith("bridges")
            else text("B <b>", f"greedy {number}")
        )
        write(folder / "scores" / path, text("A", f" {path} *greedy*", f" {path} sampled"), second)
    return study, folder


def test_the_page_has_a_row_for_each_model_largest_first(told):
    study, folder = told
    first, second = passages(study, folder)
    assert (first.prompt, second.prompt, first.more) == ("A", "B <b>", None)  # there are twelve
    shown = [[cell.shown for cell in row] for row in first.told.rows]
    assert len(shown) == 12
    assert shown[0][:2] == ["bridge", "seqkd"] and [row[0] for row in shown[1:4]] == ["large", "medium", "small"]
    sizes = [study.parameters(study.desnets[row[0]].shape) for row in shown[4:]]
    assert sizes == sorted(sizes, reverse=True) and {row[1] for row in shown[4:]} == {"nested", "rand"}
    paths = [row[3].split()[0] for row in shown]
    assert paths[0] == "bridges/llama" and paths[1] == "chain/llama/large" and len(set(paths)) == 12
    assert all(row[3:5] == [f"{path} *greedy*", f"{path} sampled"] for path, row in zip(paths, shown, strict=True))
    assert [cell.shown for cell in second.told.rows[0]][3:5] == ["not continued: too long", ""]
    assert second.told.rows[1][4].shown == "(nothing)"
    assert how(study).startswith("each beginning by up to 48 tokens") and "temperature 0.8" in how(study)


def test_of_more_than_twelve_the_others_are_folded(told, monkeypatch):
    study, folder = told
    monkeypatch.setattr("colpipe.reporting.passages.TOLD", 11)
    first, _ = passages(study, folder)
    assert [row[0].shown for row in first.told.rows] == ["bridge", "upper", "lower"]
    assert len(first.more.rows) == 9
    best = {row[0].shown: row[3].shown.split()[0] for row in first.told.rows}
    losses = {
        path: json.loads((folder / "scores" / path / "scores.json").read_text())["stories"]["loss"]
        for path in Plan(study).models
    }
    for desnet in ("upper", "lower"):
        assert losses[best[desnet]] == min(loss for path, loss in losses.items() if f"/{desnet}/" in path)
