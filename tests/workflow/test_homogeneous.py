"""An ancestor of the chain's own family: no bridge, its own tokenizer, members pretrained, from scratch and inherited."""

import copy
import json

import pandas as pd
import pytest
import yaml
from transformers import AutoTokenizer

from tests.conftest import STUDY, make_gpt2, make_tokenizer, snakemake

pytestmark = pytest.mark.slow
MEMBERS = ("large", "medium")


@pytest.fixture
def home(tmp_path, inputs):
    (tmp_path / "inputs").symlink_to(inputs)
    texts = [article["extract"] for article in json.loads((inputs / "articles.json").read_text()).values()]
    tokenizer = make_tokenizer(texts, 400)
    tokenizer.chat_template = "{% for message in messages %}Q: {{ message.content }} A:{% endfor %}"
    for name, shape in (("ancestor", (4, 4, 32)), ("public", (4, 3, 24))):
        make_gpt2(tmp_path / name, *shape, seed=1, vocabulary=len(tokenizer), positions=256)
        tokenizer.save_pretrained(tmp_path / name)
    study = copy.deepcopy(STUDY)
    study.update(
        study="own",
        architecture={"vocabulary": len(tokenizer), "positions": 256},
        tokenizer={"model": "ancestor", "prompts": "chat"},
        models={name: {"source": {"path": name}} for name in ("ancestor", "public")},
        ancestors={"gpt2": {"model": "ancestor", "select": "even"}},
        tasks={},
        budgets=[0],
    )
    study["instructions"]["describe"]["max_tokens"] = 200
    study["stages"]["distill"]["max_length"] = 250
    study["chain"]["large"].update(start="pretrained", model="public")
    study["chain"]["medium"].update(start="scratch")
    study["desnets"]["below"] = {"shape": {"layers": 1, "heads": 1, "hidden": 8}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return tmp_path


def test_a_homogeneous_chain(home):
    snakemake(home, "desnets", "--configfile", "own.yaml")
    results = home / "results" / "own"
    tokenizer = AutoTokenizer.from_pretrained(results / "chain/gpt2/small")
    for row in map(json.loads, (results / "data/describe/train.jsonl").read_text().splitlines()):
        question = "\n\n".join(filter(None, (row["instruction"].strip(), row["input"].strip())))
        assert tokenizer.decode(row["prompt_ids"]) == f"Q: {question} A:"
    assert not (results / "answers").exists() and not (results / "bridges").exists()
    manifests = {
        path.parent.name: json.loads(path.read_text()) for path in (results / "chain/gpt2").glob("*/manifest.json")
    }
    assert set(manifests["large"]["parents"]) == {"teacher", "student", "tokenizer", "data.describe", "data.stories"}
    assert "layer_map" not in manifests["medium"]
    assert manifests["small"]["layer_map"] == [0, 2]
    assert {path.name for path in (results / "sft").iterdir()} == {"ancestor", "public", "medium"}
    below = json.loads((results / "desnets/gpt2/below/nested/0/manifest.json").read_text())
    assert "alpha" not in below and set(below["parents"]) == {"source", "tokenizer"}


def test_every_initialiser_on_a_ranked_chain(home):
    study = yaml.safe_load((home / "own.yaml").read_text())
    study["ancestors"]["gpt2"] |= {"start": "inherit", "select": "rank", "elastic": True}
    study["stages"]["order"] = {"corpus": "stories", "tokens": 512, "max_length": 64}
    kinds = ["single", "subset", "hypercloning"]
    study["initialisers"] = {kind: {"kind": kind} for kind in kinds} | {
        "search": {"kind": "linit", "method": "nested", "alpha": "search"},
        "lossless": {"kind": "linit", "method": "lossless", "alpha": 1.0},
        "aligned": {"kind": "linit", "method": "aligned", "compensate": 0.5},
        "cut": {"kind": "linit", "method": "cut"},
        "auto": {"kind": "auto-learngene"},
        "vanilla": {"kind": "vanilla-learngene"},
    }
    between = [*study["initialisers"]][:-2]
    study["desnets"] = {
        "middle": {"shape": {"layers": 3, "heads": 2, "hidden": 16}, "initialisers": between},
        "thin": {"shape": {"layers": 2, "heads": 2, "hidden": 16}, "initialisers": ["cut"]},
        "planned": {"params": "23.6k", "initialisers": ["subset"]},
        "wide": {"shape": {"layers": 4, "heads": 4, "hidden": 32}, "initialisers": ["auto", "vanilla"]},
    }
    (home / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    snakemake(home, "desnets", "--configfile", "own.yaml")
    results = home / "results" / "own"

    def manifest(path):
        return json.loads((results / path / "manifest.json").read_text())

    ordered, large, medium = manifest("ordered/gpt2"), manifest("chain/gpt2/large"), manifest("chain/gpt2/medium")
    assert abs(ordered["loss_before"] - ordered["loss_after"]) < 1e-3
    assert sorted(ordered["ranking"]) == [0, 1, 2, 3] and ordered["energy"][-1] == 1
    assert large["layer_map"] == [0, 1, 2, 3] and large["ranking"] == ordered["ranking"]
    assert medium["layer_map"] == sorted(large["ranking"][:3])  # the best three of the ranking
    assert medium["elastic"] == {
        "smallest": medium["elastic"]["smallest"],
        "layers": sorted(medium["ranking"][:2]),
        "compensate": 0.0,
    }
    thin = manifest("desnets/gpt2/thin/cut/0")
    assert (thin["method"], thin["gain"]) == ("cut", 1.0) and set(thin["parents"]) == {"source", "tokenizer"}
    assert thin["layer_map"] == medium["elastic"]["layers"]
    assert "elastic" not in manifest("chain/gpt2/small")
    found = manifest("desnets/gpt2/middle/search/0")
    assert 0 <= found["alpha"] <= 1 and found["compensate"] in (0, 0.5, 1)
    records = [
        json.loads(line) for line in (results / "desnets/gpt2/middle/search/0/metrics.jsonl").read_text().splitlines()
    ]
    candidates = [record for record in records if record["split"] == "search"]
    assert found["alpha"] == min(candidates, key=lambda row: row["loss"])["alpha"]
    assert manifest("desnets/gpt2/middle/aligned/0")["compensate"] == 0.5
    assert abs(manifest("desnets/gpt2/planned/subset/0")["parameters"] / 23_600 - 1) < 0.01
    assert manifest("desnets/gpt2/wide/vanilla/0")["index_maps"]["ancestor"]["layer"] == [None, 1, 2, 3]


def test_a_model_of_another_shape_than_the_study_says_is_refused(home):
    study = yaml.safe_load((home / "own.yaml").read_text())
    study["chain"]["large"]["shape"] = {"layers": 4, "heads": 4, "hidden": 32}
    (home / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    result = snakemake(home, "results/own/chain/gpt2/large/manifest.json", "--configfile", "own.yaml", check=False)
    assert result.returncode == 1
    assert "chain.large.shape: hidden is 32, but 24 in models.public" in result.stderr


def test_every_objective_direct_and_stepwise(home):
    study = yaml.safe_load((home / "own.yaml").read_text())
    del study["chain"]["large"]["model"]
    for member in study["chain"].values():
        member["start"] = "inherit"
    base, rollout = {"model": "ancestor", "select": "even"}, {"size": 8, "max_prompt": 200, "batch_size": 4}
    objectives = ("reverse_kl", "forward_kl", "jsd", "seqkd", "minillm", "on_policy")
    study["stages"]["distill"] |= {"evaluations": 1, "answer_rows": 4, "answer_tokens": 4, "rollout": rollout}
    study["ancestors"] = {name: base | {"distill": {"objective": name}} for name in objectives} | {
        "direct": base | {"teacher": "ancestor"},
        "kept": base | {"teacher": "ancestor", "distill": {"signal": 8, "epochs": 2}},
    }
    for ancestor in ("forward_kl", "jsd", "seqkd", "minillm", "on_policy", "direct", "kept"):
        study["ancestors"][ancestor]["desnets"] = []
    study["chain"].pop("small")
    study["desnets"] = {"middle": {"shape": {"layers": 4, "heads": 2, "hidden": 16}}}
    study["initialisers"] = {
        "nested": {"kind": "linit", "method": "nested"},
        "alone": {"kind": "distilled", "distill": {"objective": "seqkd"}},
    }
    study["instructions"]["boolq"]["max_tokens"] = 240  # this tokenizer knows no template
    study["tasks"] = {"boolq": {**STUDY["tasks"]["boolq"], "fine_tune": None}}
    study["paper"] = {"gpt2-xl": "reverse_kl", "gpt2-xl-direct": "direct", "gpt2-l": "large", "gpt2-b": "medium"}
    study["paper"] |= {"DesNet-138M": "middle", "linit": "nested", "seqkd": "alone", "dolly": "boolq"}
    (home / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    snakemake(home, "chain", "table3", "figure5a", "figure5b", "--configfile", "own.yaml")
    results = home / "results" / "own"
    assert_exhibits(results)
    for ancestor in study["ancestors"]:
        for member in study["chain"]:
            folder = results / "chain" / ancestor / member
            manifest = json.loads((folder / "manifest.json").read_text())
            records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            validation = [record for record in records if record["split"] == "validation"]
            assert [record["step"] for record in validation] == [0, 4]
            assert all({"loss", "cross_entropy", "rouge_l"} <= set(record) for record in validation)
            assert manifest["kept"] | {"step": 4, "by": "rouge_l"} == manifest["kept"]
            rollouts = [record["step"] for record in records if record["split"] == "rollout"]
            assert rollouts == {"minillm": [0], "on_policy": [0, 2]}.get(ancestor, [])
    assert {path.name for path in (results / "signals/kept").iterdir()} == {"origin"}
    stepwise = json.loads((results / "chain/reverse_kl/medium/manifest.json").read_text())["parents"]
    direct, kept = (
        json.loads((results / f"chain/{name}/medium/manifest.json").read_text())["parents"]
        for name in ("direct", "kept")
    )
    assert stepwise["teacher"] != direct["teacher"] == kept["teacher"]
    assert "signal" in kept and "signal" not in direct


def assert_exhibits(results):
    """Table 3 and Figures 5a and 5b show what the scores and curves of the study say."""

    def read(path):
        return json.loads((results / path).read_text())

    table = pd.read_csv(results / "paper/table3/table3.csv")
    losses = table[table.metric == "loss"].set_index("made_of")
    made_of = {"sft/ancestor", *(f"chain/{name}/{member}" for name in ("reverse_kl", "direct") for member in MEMBERS)}
    assert set(losses.index) == made_of
    for path, row in losses.iterrows():
        assert row.ours == read(f"scores/{path}/scores.json")["stories"]["loss"]
    bars = pd.read_csv(results / "paper/figure5a/figure5a.csv").query("metric == 'loss'").set_index("init")
    for init, own in (("linit", "nested"), ("seqkd", "alone")):
        path = f"desnets/reverse_kl/middle/{own}/0"
        assert bars.loc[init].ours == read(f"scores/{path}/scores.json")["stories"]["loss"]
    alone = read("desnets/reverse_kl/middle/alone/0/manifest.json")
    assert alone["settings"]["training"]["objective"] == "seqkd"
    assert alone["parents"]["teacher"] == read("chain/direct/medium/manifest.json")["parents"]["teacher"]
    curves = pd.read_csv(results / "paper/figure5b/figure5b.csv")
    records = (results / "chain/direct/medium/metrics.jsonl").read_text().splitlines()
    losses = [record["loss"] for record in map(json.loads, records) if record["split"] == "train"]
    assert curves[curves.method == "gpt2-xl-direct"].raw.tolist() == losses
    for figure in ("figure5a", "figure5b"):
        assert (results / f"paper/{figure}/{figure}.svg").read_text().startswith("<svg")
