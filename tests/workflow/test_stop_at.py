"""A study whose recoveries end where they are good enough: what they read, what is said of them, what runs again."""

import copy
import json
import re

import pandas as pd
import pytest
import yaml

from tests.conftest import snakemake

pytestmark = pytest.mark.slow
RECOVERED = [f"desnets/{path}/8k" for path in ("one/between/nested", "scratch/between/rand")]
STUDY = {
    "study": "ends",
    "architecture": {"family": "gpt2", "vocabulary": 512, "positions": 128},
    "tokenizer": {"train": "stories"},
    "models": {"ancestor": {"shape": {"layers": 4, "heads": 4, "hidden": 32}}},
    "datasets": {"articles": {"source": {"path": "inputs/articles.json"}, "reader": "wikipedia-leads"}},
    "corpora": {"stories": {"dataset": "articles"}},
    "ancestors": {"one": {"model": "ancestor", "select": "even"}},
    "chain": {
        "large": {"start": "inherit", "shape": {"layers": 4, "heads": 3, "hidden": 24}},
        "small": {"start": "inherit", "shape": {"layers": 2, "heads": 2, "hidden": 16}},
    },
    "desnets": {"between": {"shape": {"layers": 3, "heads": 2, "hidden": 16}}},
    "initialisers": {"nested": {"kind": "linit", "method": "nested"}, "rand": {"kind": "rand"}},
    "budgets": [0, 8000],
    "perplexity": ["stories"],
    "stages": {
        "pretrain": {"tokens": 8000, "batch_size": 4, "max_length": 32, "learning_rate": 0.01},
        "distill": {"steps": 4, "batch_size": 4, "max_length": 32, "learning_rate": 0.01},
        "recover": {"batch_size": 5, "max_length": 32, "learning_rate": 0.01, "evaluations": 12, "stop_at": 0.95},
    },
}  # fmt: skip


def snake(home, stop_at: float, *arguments: str):
    study = copy.deepcopy(STUDY)
    study["stages"]["recover"]["stop_at"] = stop_at
    (home / "ends.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return snakemake(home, "--configfile", "ends.yaml", *arguments)


def recoveries(home) -> dict[str, tuple[dict, dict[int, dict]]]:
    """Path → manifest and validation records by step."""
    found = {}
    for path in RECOVERED:
        folder = home / "results/ends" / path
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        validation = {record["step"]: record for record in records if record["split"] == "validation"}
        found[path] = json.loads((folder / "manifest.json").read_text()), validation
    return found


def test_recoveries_end_where_they_are_good_enough(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    snake(tmp_path, 0.95)
    results = tmp_path / "results/ends"
    for manifest, validation in recoveries(tmp_path).values():
        stopped, last = manifest["stopped"], max(validation)
        assert "ancestor" in manifest["parents"] and stopped["target"] == stopped["ancestor"] / 0.95
        assert stopped["reached"] and stopped["loss"] == validation[last]["loss"] <= stopped["target"]
        assert all(record["loss"] > stopped["target"] for step, record in validation.items() if step < last)
        assert stopped["tokens"] == last * 5 * 32 and stopped["of"] == 2 * 8000
    assert stopped["ancestor"] == recoveries(tmp_path)[RECOVERED[0]][0]["stopped"]["ancestor"]  # measured on its own
    assert 0 < last < 100  # of the random one: neither at once nor at the end
    summary = pd.read_csv(results / "summary.csv")
    rows = summary[summary.metric == "tokens_to_recover"]
    taken = [manifest["stopped"]["tokens"] for manifest, _ in recoveries(tmp_path).values()]
    assert sorted(rows.value) == sorted(taken) and set(rows.task) == {"stories"} and set(rows.tokens) == {8000}
    line = "Recovery stops at 0.95 of the ancestor's quality on validation text: 2 of 2 got there."
    page = (results / "report.html").read_text()
    assert line in (results / "summary.txt").read_text() and line.replace("'", "&#39;") in page
    assert "<h3>Tokens to recover</h3>" in page and "<title>the ancestor: " in page

    dry = snake(tmp_path, 1.5, "-n")  # a loss, of which none of this size is
    made = re.findall(r"^ +output: results/ends/(\S+)/manifest.json", dry.stdout + dry.stderr, re.MULTILINE)
    assert sorted(made) == sorted([*RECOVERED, *(f"scores/{path}" for path in RECOVERED)])
    snake(tmp_path, 1.5)
    for manifest, validation in recoveries(tmp_path).values():
        best = min(record["loss"] for record in validation.values())
        assert "ancestor" not in manifest["parents"] and max(validation) == 100
        assert manifest["stopped"] | {"reached": False, "loss": best, "tokens": 16000} == manifest["stopped"]
    assert "tokens_to_recover" not in (results / "summary.csv").read_text()
    said = (results / "summary.txt").read_text().replace("\n", " ")
    assert "0 of 2 got there, not within their budgets: one between nested 8k, between rand 8k." in said
