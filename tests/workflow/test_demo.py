"""What the demo must show, read from its results: run `make demo` first."""

import re

import pandas as pd
import pytest
import yaml

from tests.conftest import CHECKOUT

SUMMARY = CHECKOUT / "results/demo/summary.csv"
pytestmark = pytest.mark.skipif(not SUMMARY.exists(), reason="run `make demo` first")


@pytest.fixture(scope="module")
def summary():
    return pd.read_csv(SUMMARY, keep_default_na=False, dtype={"desnet": str})


@pytest.mark.parametrize("init", ["nested", "cut"])
def test_desnets_without_recovery_beat_random_ones_after_all_of_it(summary, init):
    losses = summary[summary.metric == "loss"].astype({"value": float})
    for name, rows in losses[losses.tokens != ""].groupby("desnet"):
        largest = rows.tokens.astype(int).max()
        assembled = rows[(rows.init == init) & (rows.tokens.astype(int) == 0)].value.item()
        random = rows[(rows.init == "rand") & (rows.tokens.astype(int) == largest)].value.item()
        assert assembled < random, name


def test_every_model_has_every_score(summary):
    study = yaml.safe_load((CHECKOUT / "config/config.yaml").read_text())
    wanted = {(task, "rouge_l") for task in study["tasks"]}
    choices = ("accuracy", "unparsable", "likelihood", "likelihood_normalised", "answer_bits_per_byte")
    wanted |= {(task, metric) for task in ("boolq", "questions") for metric in choices}
    wanted |= {("boolq", "likelihood_difference"), ("questions", "likelihood_normalised_difference")}
    wanted |= {("wikipedia", metric) for metric in ("loss", "perplexity", "bits_per_byte")}
    models = summary[summary.desnet != ""].groupby(["ancestor", "desnet", "init", "tokens"])
    assert len(models) == 1 + len(study["chain"]) + len(study["desnets"]) * len(study["initialisers"]) * 2
    for name, rows in models:
        rows = rows[rows.metric != "kept"]  # where the ancestor is above chance
        assert set(zip(rows.task, rows.metric, strict=True)) == wanted, name


def test_the_page_is_self_contained():
    page = (CHECKOUT / "results/demo/report.html").read_text()
    assert page.count('class="curves"') == 7 and "<table" in page  # by size; three DesNets along recovery, and closer
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!#)|@import', page)
