"""A study whose tasks generate nothing: rows in files, comparisons in summary, table and card, and nothing made twice."""

import json
import random
import shutil

import pandas as pd
import pytest
import yaml

from colpipe.data.rows import read_rows
from tests.conftest import STUDY, WORDS
from tests.workflow.conftest import planned, run

pytestmark = pytest.mark.slow


def test_likelihoods_are_compared_with_the_ancestors(finished, tmp_path):
    home = shutil.copytree(finished.home, tmp_path / "home", symlinks=True)
    results, chance = home / "results/tiny", random.Random(1)
    texts = (f"{' '.join(chance.choices(WORDS, k=40))} {number} saw a stone wall near a school and a stone."
             for number in range(200))  # fmt: skip
    (home / "inputs/long.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    compared = {"max_new_tokens": 0, "likelihood": True}
    dev = {"source": {"path": "inputs/boolq", "files": ["dev.jsonl"]}, "reader": "boolq"}
    changed = {
        **STUDY,
        "datasets": {
            **STUDY["datasets"],
            "long": {"source": {"path": "inputs/long.jsonl"}, "reader": "text", "validation": 0, "test": 1.0},
            "dev": dev,
        },
        "instructions": {
            **STUDY["instructions"],
            "words": {"dataset": "long", "kinds": ["last-word"], "max_tokens": 128, "test_rows": 30},
            "dev": {"dataset": "dev", "max_tokens": 110},
        },
        "tasks": {name: {"instructions": name, **compared} for name in ("words", "dev")},
    }
    (home / "compared.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    model = "desnets/llama/upper/nested/512"
    run(home, "--", "all", f"results/tiny/published/{model}/README.md", study="compared.yaml")

    for name, metrics in (("words", ["last_word"]), ("dev", ["likelihood", "likelihood_normalised"])):
        tested = [row["id"] for row in read_rows(results / "data" / name, "test")]
        assert len(tested) == {"words": 30, "dev": 20}[name]
        found = pd.read_csv(results / "scores" / model / "rows" / f"{name}.csv")
        assert list(found.columns) == ["id", *metrics, "answer_bits_per_byte"] and found.id.tolist() == tested
    summary = pd.read_csv(results / "summary.csv")
    scored = summary[summary.desnet.notna()]
    assert set(scored[scored.task == "words"].metric) >= {"last_word", "answer_bits_per_byte", "last_word_difference"}
    differences = scored[scored.metric == "likelihood_difference"].set_index(["desnet", "init", "tokens"]).value
    values = (
        scored[(scored.task == "dev") & (scored.metric == "likelihood")].set_index(["desnet", "init", "tokens"]).value
    )
    [bridge] = values["bridge"]
    assert (differences - (values - bridge)).abs().max() < 1e-9 and len(differences) == 12
    card = (results / "published" / model / "README.md").read_text()
    assert "| words | Last words that are the most probable, %: less the ancestor's | " in card
    assert "| dev | Bits per byte of right answers | " in card
    assert max(map(len, (results / "summary.txt").read_text().splitlines())) <= 100
    assert not list((results / "scores" / model).glob("answers/*"))
    again = planned(home, "--", "all", f"results/tiny/published/{model}/README.md", study="compared.yaml")
    assert again == set()
