"""A study that says names, sizes, text and steps: its members and DesNets are fitted cuts of a ranked ancestor."""

import json
import re

import pytest
import yaml

from tests.conftest import make_gpt2, make_tokenizer, snakemake

pytestmark = pytest.mark.slow
FITTED = ("chain/gpt2/large", "desnets/gpt2/between/fit/0", "desnets/gpt2/deeper/fit/0")
STUDY = {
    "study": "brief",
    "models": {"ancestor": {"source": {"path": "ancestor"}}},
    "datasets": {"articles": {"source": {"path": "inputs/articles.json"}, "reader": "wikipedia-leads"}},
    "corpora": {"stories": {"dataset": "articles"}},
    "instructions": {"describe": {"dataset": "articles", "kinds": ["describe"], "max_tokens": 200}},
    "ancestors": {"gpt2": {"model": "ancestor"}},
    "chain": {
        "large": {"shape": {"layers": 4, "heads": 3, "hidden": 24}},
        "small": {"start": "inherit", "shape": {"layers": 2, "heads": 2, "hidden": 16}},
    },
    "desnets": {
        "between": {"shape": {"layers": 3, "heads": 2, "hidden": 16}},
        "deeper": {"shape": {"layers": 4, "heads": 2, "hidden": 16}},
    },
    "stages": {
        "order": {"tokens": 512},
        "sft": {"steps": 2, "max_length": 256},
        "fit": {"tokens": 1024, "max_length": 64},
        "distill": {"steps": 2, "max_length": 64},
    },
}


@pytest.fixture
def home(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    texts = [article["extract"] for article in json.loads((inputs / "articles.json").read_text()).values()]
    tokenizer = make_tokenizer(texts, 400)
    make_gpt2(tmp_path / "ancestor", 5, 4, 32, seed=1, vocabulary=len(tokenizer), positions=256)
    tokenizer.save_pretrained(tmp_path / "ancestor")
    return tmp_path


def run(home, study: dict, *arguments: str):
    (home / "brief.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return snakemake(home, "chain", "desnets", "--configfile", "brief.yaml", *arguments)


def test_fitted_members_and_desnets_and_what_another_ridge_makes_again(home):
    run(home, STUDY)
    results = home / "results/brief"
    manifests = {
        path: json.loads((results / path / "manifest.json").read_text())
        for path in (*FITTED, "chain/gpt2/small", "ordered/gpt2")
    }
    for path in FITTED:
        fit = manifests[path].get("fit", manifests[path])  # of a member, beside what its training kept
        assert (fit["ridge"], fit["tokens"]) == (0.3, 1024) and fit["fitted"]
        assert all(each["after"] <= each["before"] for each in fit["fitted"])
        assert "corpus" in manifests[path]["parents"]
    assert manifests["desnets/gpt2/between/fit/0"]["method"] == "fit"
    small = manifests["chain/gpt2/small"]
    assert "fit" not in small and "corpus" not in small["parents"]
    assert manifests["chain/gpt2/large"]["layer_map"] == sorted(manifests["ordered/gpt2"]["ranking"][:4])
    assert "fitted on 1,024 tokens, ridge 0.3" in (results / "logs/assemble/gpt2/between/fit.log").read_text()
    logs = [(results / f"logs/assemble/gpt2/{desnet}/fit.log").read_text() for desnet in ("between", "deeper")]
    assert sum("another job has gathered the streams of its source" in log for log in logs) == 1
    assert "another job" not in (results / "logs/distill/gpt2/large.log").read_text()  # nothing else has its source
    assert not (results / "work/streams").exists()
    again = {**STUDY, "stages": {**STUDY["stages"], "fit": {**STUDY["stages"]["fit"], "ridge": 0.1}}}
    dry = run(home, again, "-n")
    made = re.findall(r"^ +output: results/brief/(\S+)/manifest.json", dry.stdout + dry.stderr, re.MULTILINE)
    assert sorted(made) == sorted((*FITTED, "chain/gpt2/small"))  # which follows from its teacher
