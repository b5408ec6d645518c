"""examples/one-model.ipynb, cell by cell, on a tiny model."""

import json
import random

import pytest

from tests.conftest import CHECKOUT, WORDS, make_llama

NOTEBOOK = json.loads((CHECKOUT / "examples" / "one-model.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs():
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def test_it_runs_where_its_first_cell_points_to(tmp_path, monkeypatch, capsys):
    chance = random.Random(0)
    text = "\n\n".join(" ".join(chance.choice(WORDS) for _ in range(60)) for _ in range(40))
    (tmp_path / "text.txt").write_text(text)
    make_llama(tmp_path / "model", [text])
    monkeypatch.chdir(tmp_path)
    first, *others = CODE
    known: dict = {}
    exec(first, known)
    own = {"MODEL": "model", "TEXT": "text.txt", "SIZE": {"layers": 1, "heads": 4, "hidden": 32}, "OUT": "small"}
    assert {name for name in known if name.isupper()} == set(own)
    known.update(own)
    for cell in others:
        exec(cell, known)
    assert known["small"].config.num_hidden_layers == 1
    for model in ("whole", "cut", "fitted"):
        assert known["losses"][model] == pytest.approx(by_hand(known["models"][model], known["rows"]), rel=1e-5)
    assert known["losses"]["fitted"] <= known["losses"]["cut"]
    assert (tmp_path / "small-q8_0.gguf").stat().st_size == known["exported"].bytes
    said = capsys.readouterr().out
    assert f"{known['losses']['whole']:.4f} nats" in said and known["held_out"][:40] in said


def by_hand(model, rows) -> float:
    """Mean loss of all predicted tokens."""
    import torch

    with torch.no_grad():
        losses = [-model(row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None]) for row in rows]
    return torch.cat(losses).mean().item()
