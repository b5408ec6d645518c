"""What somebody who just needs a model gets: a folder that transformers loads, with a card that says what is true."""

import json

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from colpipe.config.stages import OPENINGS
from colpipe.jobs import artifacts
from colpipe.reporting.continuations import one_line, seen
from tests.conftest import STUDY
from tests.workflow.conftest import planned, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(finished):
    before = {
        path: artifacts.fingerprint(path.parent) for path in finished.results.glob("desnets/*/*/*/*/manifest.json")
    }
    run(finished.home, "--", "published")
    assert {
        path: artifacts.fingerprint(path.parent) for path in before
    } == before  # nothing that depends on them reruns
    assert planned(finished.home) == set() and planned(finished.home, "--", "published") == set()
    return finished.results / "published"


def test_every_desnet_is_published(published, finished):
    found = {path.parent.relative_to(published) for path in published.rglob("README.md")}
    assert found == {
        path.parent.relative_to(finished.results) for path in finished.results.glob("desnets/*/*/*/*/manifest.json")
    }
    private = {"manifest.json", "run.json", "metrics.jsonl"}  # with host, times and paths of this machine
    assert not private & {path.name for path in published.rglob("*")}


def test_it_loads_and_answers(published):
    folder = published / "desnets/llama/upper/nested/512"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() == 23_392
    settings = model.generation_config
    assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert not settings.do_sample and model.config.use_cache
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Describe it.", "input": "the old city"}], return_tensors="pt", return_dict=True
    )
    answer = model.generate(**asked, max_new_tokens=5)
    assert asked["input_ids"].shape[1] < answer.shape[1] <= asked["input_ids"].shape[1] + 5


@pytest.mark.parametrize("path", ["desnets/llama/upper/nested/512", "desnets/scratch/lower/rand/0"])
def test_the_three_lines_of_its_card_work(published, path, capsys, monkeypatch):
    text = (published / path / "README.md").read_text()
    lines = text.partition("```python\n")[2].partition("```")[0].replace("path/or/name/of/this/model", path)
    assert len(lines.splitlines()) == 3
    monkeypatch.chdir(published)
    exec(lines.replace('is")', 'is", max_new_tokens=4)').replace('"}]', '"}], max_new_tokens=4'), {})
    assert capsys.readouterr().out.strip() or "[-1]" in lines  # a random model may answer nothing
    assert pipeline("text-generation", str(published / path)).model.config.model_type == "gpt2"


def test_the_cards_numbers_are_those_of_the_summary(published, finished):
    summary = pd.read_csv(finished.results / "summary.csv", keep_default_na=False, dtype=str)
    summary = summary.set_index(["ancestor", "desnet", "init", "tokens", "task", "metric"]).astype({"value": float})
    ours = {"Rouge-L, %": "rouge_l", "Accuracy, %": "accuracy", "Loss, nats per token": "loss"}
    for path in published.rglob("README.md"):
        card = ModelCard.load(path)
        ancestor, desnet, init, tokens = path.parent.relative_to(published / "desnets").parts
        ancestor = "" if init == "rand" else ancestor
        assert len(card.data.eval_results) == 6
        for result in card.data.eval_results:
            words = result.metric_name.removesuffix(", after fine-tuning on the task")
            assert (words != result.metric_name) == (result.dataset_name == "boolq")
            if words in ours:
                row = summary.loc[(ancestor, desnet, init, tokens, result.dataset_name, ours[words])]
                assert result.metric_value == row.value
                interval = f"| {row.value:.4f} | {float(row.low):.4f} to {float(row.high):.4f} |"
                assert f"| {result.dataset_name} | {words} {interval}" in card.text


def test_the_card_says_where_the_model_is_from(published, finished):
    card = ModelCard.load(published / "desnets/llama/upper/nested/512/README.md")
    assert (card.data.pipeline_tag, card.data.library_name, card.data.license) == (
        "text-generation", "transformers", "unknown",
    )  # fmt: skip
    assert card.data.base_model is None  # the Hub takes names of its own models only
    for path in ("sft/llama", "bridges/llama", "chain/llama/medium", "desnets/llama/upper/nested/0"):
        assert f"`{path}`" in card.text and f"`{artifacts.fingerprint(finished.results / path)}`" in card.text
    assert f"learning_rate: {STUDY['stages']['sft'].get('learning_rate', 1e-5):.1e}" in card.text
    assert str(finished.home) not in str(card) and "not stated" in card.text


def test_the_card_shows_what_the_model_writes_beside_its_ancestors_bridge(published, finished):
    bridge = json.loads((finished.results / "scores/bridges/llama/continuations.json").read_text())
    for path, beside in (("desnets/llama/upper/nested/512", True), ("desnets/scratch/lower/rand/0", False)):
        own = json.loads((finished.results / "scores" / path / "continuations.json").read_text())
        assert [text["prompt"] for text in own] == OPENINGS and all("problem" not in text for text in own)
        section = (published / path / "README.md").read_text().partition("## What it writes")[2].partition("\n## ")[0]
        unwrapped = "".join(section.split())  # words that are too long for a line are broken
        for text in [*own, *(bridge if beside else [])]:
            for way in ("greedy", "sampled"):
                assert "".join(one_line(seen(text[way])).split()) in unwrapped
        assert section.count("this model, sampled:") == 5
        assert section.count("its ancestor's bridge, greedy:") == 5 * beside


def test_a_licence_rewrites_the_cards_and_nothing_else(published, finished):
    study = yaml.safe_load((finished.home / "my-study.yaml").read_text())
    study["datasets"]["questions"]["license"] = "cc-by-sa-3.0"
    (finished.home / "licensed.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    assert planned(finished.home, study="licensed.yaml") == set()
    cards = {path.relative_to(finished.results).as_posix() for path in published.rglob("README.md")}
    assert planned(finished.home, "--", "published", study="licensed.yaml") == cards
