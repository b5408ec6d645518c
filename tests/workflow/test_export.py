"""The target `exported`: every DesNet as GGUF files, and nothing of the study made again for it."""

import importlib.util
import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from colpipe.reporting.exports import read_exports
from tests.conftest import STUDY
from tests.workflow.conftest import planned, run

pytestmark = pytest.mark.slow


def test_every_desnet_is_exported(finished):
    run(finished.home, "--", "exported")
    exported = finished.results / "exported"
    models = {
        path.parent.relative_to(finished.results) for path in finished.results.glob("desnets/*/*/*/*/manifest.json")
    }
    assert len(models) == 8
    for model in models:
        name = "-".join(model.parts[2:])
        found = {path.name for path in (exported / model).iterdir() if path.suffix in (".gguf", ".Modelfile")}
        assert found == {f"{name}-{type}.{kind}" for type in ("f16", "q8_0", "q4_0") for kind in ("gguf", "Modelfile")}
    assert planned(finished.home) == planned(finished.home, "--", "exported") == set()


def test_a_study_that_reports_them_shows_bytes_and_speeds(finished, tmp_path):
    """In the summary, its table, on the page, in the card and by `colpipe show`; the files are made with the report."""
    home = shutil.copytree(finished.home, tmp_path / "home", symlinks=True)
    results = home / "results/tiny"
    changed = {**STUDY, "stages": {**STUDY["stages"], "export": {"types": ["q8_0"], "reported": True}}}
    (home / "exported.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    model = "desnets/llama/upper/nested/512"
    card = results / "published" / model / "README.md"
    run(home, "--", "all", str(card.relative_to(home)), study="exported.yaml")
    made = json.loads((results / "exported" / model / "manifest.json").read_text())
    size = (results / "exported" / model / "upper-nested-512-q8_0.gguf").stat().st_size
    assert made["bytes"] == {"q8_0": size}
    summary = pd.read_csv(results / "summary.csv").query("task == 'q8_0' and init == 'nested' and tokens == 512")
    told = summary.query("desnet == 'upper'").set_index("metric").value.to_dict()
    if importlib.util.find_spec("xllamacpp"):
        speed = read_exports(results / "exported" / model).speeds["q8_0"]
        assert told == {"bytes": size, "prompt": speed["prompt"], "answer": speed["answer"]} and min(told.values()) > 0
    assert told["bytes"] == size
    table = (results / "summary.txt").read_text()
    assert "q8_0" in table and f"{size / 1e6:.1f}" in table
    show = [sys.executable, "-m", "colpipe", "show", "results/tiny"]
    shown = subprocess.run(show, cwd=home, capture_output=True, text=True).stdout
    assert f"{model}/upper-nested-512-q8_0.gguf  {size / 1e6:.1f} MB" in shown
    assert f"|---|\n| Q8_0 | {size:,} |" in card.read_text()
    page = (results / "report.html").read_text()
    assert "Q8_0" in page and f"{size:,}" in page
