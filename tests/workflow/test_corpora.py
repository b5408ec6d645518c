"""Corpora that an ancestor writes and that are mixed, through the whole graph: to the report and to cards."""

import copy
import json

import pandas as pd
import pytest
import yaml

from colpipe.data.shards import Tokens
from tests.conftest import STUDY, make_gpt2, make_tokenizer, snakemake

pytestmark = pytest.mark.slow


def test_a_study_on_text_of_its_ancestor(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    texts = [article["extract"] for article in json.loads((inputs / "articles.json").read_text()).values()]
    tokenizer = make_tokenizer(texts, 400)
    make_gpt2(tmp_path / "ancestor", 4, 4, 32, seed=1, vocabulary=len(tokenizer), positions=128)
    tokenizer.save_pretrained(tmp_path / "ancestor")
    study = copy.deepcopy(STUDY)
    study.update(
        study="own",
        architecture={"vocabulary": len(tokenizer), "positions": 128},
        tokenizer={"model": "ancestor"},
        models={"ancestor": {"source": {"path": "ancestor"}}},
        ancestors={"gpt2": {"model": "ancestor", "select": "even"}},
        chain={"large": STUDY["chain"]["large"]},
        desnets={"lower": STUDY["desnets"]["lower"]},
        initialisers={"nested": {"kind": "linit", "method": "nested"}},
        instructions={},
        tasks={},
        corpora={
            "stories": {"dataset": "articles"},
            "own": {
                "written": {"openings": "stories", "opening": 8, "max_new_tokens": 24, "tokens": "2k", "batch_size": 16}
            },
            "both": {"data": {"stories": 3, "own": 1}},
        },
        perplexity=["both", "own"],
    )
    study["stages"] = {
        "distill": {"data": {"stories": 0.6, "own": 0.4}, "steps": 2, "max_length": 32, "signal": 4, "evaluations": 1},
        "recover": {**STUDY["stages"]["recover"], "corpus": "both"},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    snakemake(tmp_path, "all", "published", "--configfile", "own.yaml")
    results = tmp_path / "results" / "own"

    def manifest(path: str) -> dict:
        return json.loads((results / path / "manifest.json").read_text())

    own, both = manifest("data/own"), manifest("data/both")
    assert set(own["parents"]) == {"writer", "openings", "tokenizer"} and own["settings"]["ancestor"] == "gpt2"
    assert 2000 <= own["counts"]["train"]["tokens"] == len(Tokens(results / "data/own", "train")) < 2033
    used = {name: part["tokens"] for name, part in both["parts"]["train"].items()}
    assert used["own"] == own["counts"]["train"]["tokens"] and abs(used["stories"] - 3 * used["own"]) < 100
    assert both["counts"]["train"]["tokens"] == sum(used.values())
    member, signal = manifest("chain/gpt2/large"), manifest("signals/gpt2/origin")
    assert member["settings"]["training"]["data"] == signal["settings"]["weights"] == {"stories": 0.6, "own": 0.4}
    blocks = own["counts"]["train"]["tokens"] // 32
    assert member["mixture"] == signal["mixture"]
    assert member["mixture"]["own"] == {"used": blocks, "of": blocks}
    assert abs(member["mixture"]["stories"]["used"] - 1.5 * blocks) <= 0.5
    assert set(manifest("desnets/gpt2/lower/nested/512")["parents"]) == {"model", "corpus"}
    leakage = pd.read_csv(results / "leakage/leakage.csv")
    assert set(leakage.evaluated) == set(leakage.trained) == {"own", "stories"}
    scores = json.loads((results / "scores/desnets/gpt2/lower/nested/512/scores.json").read_text())
    assert set(scores) == {"both", "own"} and all(score["bits_per_byte"] > 0 for score in scores.values())
    card = (results / "published/desnets/gpt2/lower/nested/512/README.md").read_text()
    assert "data/both" in card and "data/own" in card and "inputs/articles.json" not in card
    again = snakemake(tmp_path, "all", "published", "--configfile", "own.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
