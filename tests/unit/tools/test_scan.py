"""A scan says once what a uniform guess loses, and how many of its candidates are worse: scan and cuts."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from colpipe.config.parts import Runtime
from colpipe.jobs.job import Job, JobSpec
from colpipe.tools import cuts, scan
from tests.unit.stages.test_models import corpus, model  # noqa: F401  (fixtures)


def run(tool, name: str, folder, settings: dict, parents: dict) -> dict:
    """A tool's manifest."""
    given = tool.Settings.model_validate(settings)
    spec = JobSpec(
        name, folder, folder.with_name("work"), given, Runtime(device="cpu"), parents, 0, None, None, tool.__name__
    )
    with Job(spec) as job:
        tool.main(job)
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def broken(model):  # noqa: F811
    """Sure of what is wrong."""
    weights = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        weights.lm_head.weight *= 40
    weights.save_pretrained(model)
    return model


def test_candidates_worse_than_a_uniform_guess_are_counted(broken, corpus, tmp_path, capfd):  # noqa: F811
    shapes = [{"layers": 2, "heads": 2, "kv_heads": 2, "hidden": 16, "ffn": 32}]
    parents = {"smaller": broken, "larger": broken, "corpus": corpus}
    made = run(scan, "scan", tmp_path / "out", {"shapes": shapes, "alphas": [0.0, 1.0]}, parents)
    assert (made["candidates"], made["broken"], round(made["uniform_loss"], 2)) == (2, 2, 5.70)
    assert "; a uniform guess has 5.70 (ln 300), 2 are worse: broken" in capfd.readouterr().err


def test_a_scan_fits_in_the_precision_of_its_settings(model, corpus, tmp_path, monkeypatch):  # noqa: F811
    used, made = [], scan.scan
    monkeypatch.setattr(scan, "scan", lambda *given, **more: used.append(more["precision"]) or made(*given, **more))
    shapes = [{"layers": 1, "heads": 2, "kv_heads": 2, "hidden": 16, "ffn": 32}]
    fit = {"corpus": "c", "tokens": 128, "max_length": 32, "precision": "bfloat16"}
    settings = {"shapes": shapes, "methods": ["fit"], "fit": fit}
    run(scan, "scan", tmp_path / "out", settings, {"smaller": model, "larger": model, "corpus": corpus})
    assert used == ["bfloat16"]


def test_cuts_worse_than_a_uniform_guess_are_counted(broken, corpus, tmp_path, capfd):  # noqa: F811
    settings = {"cuts": [{"layers": 1}, {"ffn": 16}], "selects": ["first"], "tokens": 128, "max_length": 32}
    made = run(cuts, "cuts", tmp_path / "out", settings, {"model": broken, "corpus": corpus})
    assert (made["broken"], round(made["uniform_loss"], 2)) == (2, 5.70)
    assert "a uniform guess has 5.70 (ln 300), 2 are worse: broken." in capfd.readouterr().out
