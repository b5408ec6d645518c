"""`colpipe cut`, `fit` and `scan`: models out of a folder, from the command line."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import colpipe
from colpipe.__main__ import main
from colpipe.tools.candidates import split


@pytest.fixture
def home(inputs, tmp_path, monkeypatch):
    """A folder with a model and a text."""
    (tmp_path / "llama").symlink_to(inputs / "llama")
    articles = json.loads((inputs / "articles.json").read_text())
    (tmp_path / "text.txt").write_text("\n".join(article["extract"] for article in articles.values()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whole() -> dict:
    config = json.loads(open("llama/config.json").read())
    return {"layers": config["num_hidden_layers"], "hidden": config["hidden_size"], "ffn": config["intermediate_size"]}


def test_cut_keeps_layers_as_they_are(home, capsys):
    layers = whole()["layers"]
    main(["cut", "llama", f"layers={layers - 1}", "out", "--select", "first"])
    made, source = (AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("out", "llama"))
    assert {name for name in source if f"layers.{layers - 1}." not in name} == set(made)
    assert all(torch.equal(value, source[name]) for name, value in made.items())
    count = sum(value.numel() for value in made.values())
    assert re.match(rf"out: {count:,} parameters, \d+% of llama\n", capsys.readouterr().out)
    assert AutoTokenizer.from_pretrained("out")("the old city") == AutoTokenizer.from_pretrained("llama")(
        "the old city"
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_is_that_of_the_api(home, capsys, precision):
    main(["fit", "llama", "layers=1", "out", "--text", "text.txt", "--tokens", "1k", "--precision", precision])
    config = json.loads((home / "llama/config.json").read_text())
    shape = {
        "layers": 1,
        "heads": config["num_attention_heads"],
        "hidden": config["hidden_size"],
        "ffn": config["intermediate_size"],
    }
    by_hand = colpipe.fit("llama", shape, home / "text.txt", tokens=1000, precision=precision).state_dict()
    made = AutoModelForCausalLM.from_pretrained("out").state_dict()
    for name, value in by_hand.items():
        torch.testing.assert_close(made[name], value)
    assert "% of llama" in capsys.readouterr().out


def test_a_narrower_shape_has_units_in_proportion(home):
    config = whole()
    half = config["hidden"] // 2
    main(["cut", "llama", f"hidden={half},heads=2,kv_heads=1", "out"])
    made = json.loads((home / "out/config.json").read_text())
    assert (made["num_hidden_layers"], made["hidden_size"]) == (config["layers"], half)
    assert made["intermediate_size"] == config["ffn"] // 2


def test_scan_is_sorted_by_loss_beside_the_model(home, capsys):
    main(["scan", "llama", "layers=1", f"ffn={whole()['ffn'] // 2}", "--text", "text.txt"])
    head, first, *rows, remark = capsys.readouterr().out.splitlines()
    assert head.split() == ["asked", "for", "shape", "parameters", "loss", "more"]
    assert first.split()[0] == "llama" and first.split()[-1] == "+0.000"
    losses = [float(row.split()[-2]) for row in rows]
    assert len(rows) == 2 and losses == sorted(losses)
    assert re.match(
        r"Loss: nats per token of [\d,]+ at the end of text.txt; a uniform guess has 5.70 \(ln 300\)", remark
    )


def test_what_is_scored_is_not_what_is_fitted_on(home):
    fitted, scored = split(home / "text.txt")
    assert fitted + scored == (home / "text.txt").read_text()
    assert fitted.endswith("\n") and 0.08 < len(scored) / len(fitted + scored) <= 0.1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["cut", "llama", "layers=1,widt=4", "out"],
            "cut: error: SHAPE 'layers=1,widt=4': widt=4; axes are layers, ",
        ),
        (["cut", "llama", "layers=one", "out"], "cut: error: SHAPE 'layers=one': layers=one; axes are "),
        (["cut", "llama", "layers=9", "out"], "cut: error: llama: layer is "),
        (["cut", "nowhere", "9M", "out"], "cut: error: nowhere: is no model folder: no config.json in it"),
        (
            ["cut", "llama", "9G", "out"],
            "cut: error: shape '9G': give layers, heads and hidden, or parameters such as ",
        ),
        (["cut", "llama", "9B", "out"], "cut: error: llama: 9,000,000,000 parameters are more than the model's "),
        (["cut", "llama", "layers=1", "text.txt"], "cut: error: text.txt: is there already; give a new folder"),
        (
            ["fit", "llama", "layers=1", "llama", "--text", "text.txt"],
            "fit: error: llama: is there already; give a new ",
        ),
        (
            ["fit", "llama", "layers=1", "out", "--text", "no.txt"],
            "fit: error: no.txt: cannot be read as a text file: ",
        ),
        (
            ["fit", "llama", "layers=1", "out", "--text", "text.txt", "--tokens", "x"],
            "fit: error: --tokens 'x': give a ",
        ),
        (
            ["scan", "llama", "layers=1", "--text", "llama/model.safetensors"],
            "scan: error: llama/model.safetensors: cannot",
        ),
        (["scan", "llama", "layers=1", "--text", "short.txt"], "scan: error: short.txt: its last tenth has "),
    ],
)
def test_mistakes_are_a_line(home, words, line):
    (home / "short.txt").write_text("the old city\n" * 20)
    with pytest.raises(SystemExit) as refusal:
        main(words)
    assert str(refusal.value).startswith(f"colpipe {line}") and "\n" not in str(refusal.value)
    assert not (home / "out").exists()
