"""What the demo must show, read from its results: run `make demo` first."""

import json
import re

import pandas as pd
import pytest
import yaml

from colpipe.config.loading import load_study
from colpipe.pipeline.plan import Plan
from tests.conftest import CHECKOUT

STUDIES = {"demo": "config", "bridge": "bridge"}
pytestmark = pytest.mark.skipif(
    not all((CHECKOUT / f"results/{name}/summary.csv").exists() for name in STUDIES), reason="run `make demo` first"
)
CHOICES = ("likelihood", "likelihood_normalised", "answer_bits_per_byte")


@pytest.fixture(scope="module")
def summaries():
    return {
        name: pd.read_csv(CHECKOUT / f"results/{name}/summary.csv", keep_default_na=False, dtype={"desnet": str})
        for name in STUDIES
    }


def losses(summary: pd.DataFrame) -> pd.DataFrame:
    found = summary[(summary.metric == "loss") & (summary.desnet != "")].astype({"value": float})
    return found.assign(tokens=pd.to_numeric(found.tokens))


def test_a_desnet_of_a_real_model_is_near_it_and_recovery_helps(summaries):
    found = losses(summaries["demo"])
    ancestor = found[found.desnet == "smollm2-135m"].value.item()
    made = found[found.tokens.notna()].pivot_table(index="desnet", columns="tokens", values="value")
    assert list(made.index) == ["100M", "110M", "90M"] and list(made.columns) == [0, 10_000]
    assert (made[0] < ancestor + 1.5).all()  # with nothing but a cut, it would be 2 to 5 nats for the smallest
    assert (made[10_000] < made[0]).all()
    assert made.loc["110M", 10_000] < made.loc["100M", 10_000] < made.loc["90M", 10_000]


def test_desnets_of_micro_models_without_recovery_beat_random_ones_after_all_of_it(summaries):
    found = losses(summaries["bridge"])
    random = found[(found.init == "rand") & (found.tokens == 50_000)].value.item()
    for init in ("nested", "cut"):
        assert found[(found.init == init) & (found.tokens == 0)].value.item() < random, init


def test_every_model_has_every_score(summaries):
    wanted = {
        "demo": {("piqa", metric) for metric in (*CHOICES, "likelihood_normalised_difference")}
        | {("last-words", metric) for metric in ("last_word", "answer_bits_per_byte", "last_word_difference")},
        "bridge": {
            ("boolq", metric) for metric in (*CHOICES, "rouge_l", "accuracy", "unparsable", "likelihood_difference")
        },
    }
    for name, summary in summaries.items():
        study = load_study(yaml.safe_load((CHECKOUT / f"config/{STUDIES[name]}.yaml").read_text()))
        models = summary[summary.desnet != ""].groupby(["ancestor", "desnet", "init", "tokens"])
        assert len(models) == len(Plan(study).models)
        text = {("wikipedia", metric) for metric in ("loss", "perplexity", "bits_per_byte")}
        for model, rows in models:
            rows = rows[rows.metric != "kept"]  # where the ancestor is above chance
            assert set(zip(rows.task, rows.metric, strict=True)) == wanted[name] | text, model


def test_it_says_in_words_what_was_made_and_shows_what_it_writes():
    lines = (CHECKOUT / "results/demo/summary.txt").read_text().splitlines()
    assert max(map(len, lines)) <= 100
    said = " ".join(lines)
    for size, parameters, share in (("110M", "109.7M", 82), ("100M", "99.1M", 74), ("90M", "92.0M", 68)):
        made = rf"{size} \(fit, 10k tokens\): {parameters} parameters, {share} % of its ancestor"
        assert re.search(rf"{made}; loss \d\.\d+, 0\.\d+ above", said), size
    written = json.loads((CHECKOUT / "results/demo/scores/desnets/smollm2/110M/fit/10k/continuations.json").read_text())
    assert len(written) == 5 and all(len(each["greedy"].split()) > 5 for each in written)


def test_the_pages_are_self_contained():
    for name, curves in (("demo", 3), ("bridge", 1)):
        page = (CHECKOUT / f"results/{name}/report.html").read_text()
        assert page.count('class="curves"') >= curves and "<table" in page
        assert not re.search(r'(src|href)="(?!data:|#)|url\((?!#)|@import', page)
