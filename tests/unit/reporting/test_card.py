"""The card's metadata, as the Hub reads it."""

import pytest
from huggingface_hub import ModelCard

from colpipe.config.parts import Shape, Source
from colpipe.reporting.card import Asked, Described, Origin, card, licence
from colpipe.reporting.continuations import block
from colpipe.reporting.exports import Exports

TEXT_ONLY = Asked(instructed=False, prompt=None, chat=False)
PLAIN = Described(
    study="s", path="desnets/a/x/fit/0", ancestor="a", family="gpt2", shape=Shape(layers=1, heads=1, hidden=8),
    sources={}, scored={}, tasks={},
)  # fmt: skip
MADE = {PLAIN.path: ({"stage": "assemble", "parents": {}, "settings": {}, "parameters": 9}, "f")}
CONFIG = {"n_positions": 1024, "n_embd": 8, "n_head": 1, "vocab_size": 49152}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (["mit", "mit"], "mit"),
        (["mit", "apache-2.0"], "other"),
        (["mit", None], "other"),
        ([None, None], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_licence_is_stated_only_where_all_sources_state_the_same(stated, expected):
    source = Source(hub="a/b")
    found = licence([Origin(name=str(n), source=source, license=each) for n, each in enumerate(stated)])
    assert found["license"] == expected
    assert ("license_name" in found and "license_link" in found) == (expected == "other")  # the Hub wants both with it


GEMMA = "https://ai.google.dev/gemma/terms"


def test_terms_of_what_it_is_made_from_are_on_the_card_and_of_what_it_is_scored_on_are_not():
    wheels = Source(pypi=["a==1", "b==1"], sha256=["0" * 64, "1" * 64], files=["*"])
    made_from = Origin(name="gemma3-270m", source=wheels, license="gemma", terms=GEMMA)
    scored_on = Origin(name="wiki", source=Source(hub="a/wiki"), license="own", terms="https://example.org/own")
    sources = {"resources/models/gemma": made_from, "resources/data/wiki": scored_on}
    made = {"resources/models/gemma": ({"stage": "fetch_model", "parents": {}, "settings": {}}, "g"), **MADE}
    found = card(PLAIN.model_copy(update={"sources": sources}), CONFIG, made, {}, {}, {}, TEXT_ONLY, 0)
    assert (found.data.license, found.data.to_dict()["license_link"]) == ("gemma", GEMMA)
    lines = found.text.splitlines()
    place = f"wheel: a==1, sha256 {'0' * 64}; wheel: b==1, sha256 {'1' * 64}"
    assert f"| gemma3-270m | {place} | [gemma]({GEMMA}) | the model descends from it |" in lines
    (line,) = [number for number, line in enumerate(lines) if line.startswith("**Terms of use**")]
    assert lines[line].startswith(
        "**Terms of use**: this model is made from gemma3-270m and provided under and subject"
    )
    assert lines[line + 1].startswith(f"found at <{GEMMA}>") and "example.org/own>" not in found.text
    assert "terms" not in Origin(name="wiki", source=Source(hub="a/wiki")).model_dump()  # cards from before stay valid


@pytest.mark.parametrize(("path", "ancestor", "loss", "told"), [
    ("desnets/a/x/nested/0", "a", 11.42, True),
    ("desnets/a/x/nested/0", "a", 4.2, False),
    ("desnets/scratch/x/rand/0", "", 11.42, False),  # nothing was learnt yet
    ("desnets/scratch/x/rand/1k", "", 11.42, True),
])  # fmt: skip
def test_a_uniform_guess_stands_beside_the_loss_and_a_model_that_is_worse_is_broken(path, ancestor, loss, told):
    origin = Origin(name="wiki", source=Source(hub="a/wiki", revision="abc"))
    known = Described(
        study="s", path=path, ancestor=ancestor, family="gpt2", shape=Shape(layers=1, heads=1, hidden=8),
        sources={"resources/data/wiki": origin}, scored={"wiki": "resources/data/wiki"}, tasks={},
    )  # fmt: skip
    made = {path: ({"stage": "assemble", "parents": {}, "settings": {}, "parameters": 9}, "f")}
    config = {"n_positions": 1024, "n_embd": 8, "n_head": 1, "vocab_size": 49152}
    text = card(known, config, made, {"wiki": {"loss": loss}}, {"wiki": {}}, {}, TEXT_ONLY, 0).text
    assert f"| wiki | Loss, nats per token | {loss:.4f} |  | these | uniform 10.80 |" in text.splitlines()
    line = "**This model is broken**: its loss (wiki: 11.42) is worse than guessing; a uniform guess has 10.80 (ln 49,152)."
    assert (line in text.splitlines()) == told


def test_what_is_on_the_hub_is_linked_and_what_it_is_scored_on_is_not_its_data(tmp_path):
    def manifest(stage, *parents, **more):
        settings = {"dataset": {"source": {"path": "/home/somebody/secret"}, "reader": "dolly"}}
        return {"stage": stage, "parents": dict.fromkeys(parents), "settings": settings, **more}

    known = Described(
        study="gpt2",
        path="chain/xl/base",
        ancestor="gpt2-xl",
        family="gpt2",
        shape=Shape(layers=12, heads=12, hidden=768),
        sources={
            "resources/models/xl-1": Origin(
                name="xl", source=Source(hub="openai-community/gpt2-xl", revision="abc"), license="mit"
            ),
            "resources/data/dolly-1": Origin(
                name="dolly", source=Source(hub="databricks/databricks-dolly-15k"), license="cc-by-sa-3.0"
            ),
            "resources/data/arc-1": Origin(name="arc", source=Source(hub="allenai/ai2_arc", revision="def")),
        },
        scored={"arc-easy": "resources/data/arc-1"},
        tasks={"arc-easy": {"instructions": "arc"}},
    )
    made = {
        "resources/models/xl-1": (manifest("fetch_model"), "f1"),
        "resources/data/dolly-1": (manifest("fetch_dataset"), "f2"),
        "chain/xl/base": (manifest("distill", parameters=124_439_808) | {"parents": {"teacher": "f1"}}, "f3"),
    }
    scores = {"arc-easy": {"accuracy": 25.5, "likelihood": 30.25}}
    intervals = {"arc-easy": {"accuracy": (20.0, 30.0)}}
    guesses = {"arc-easy": [{"init": "chance", "metric": "accuracy", "value": 25.0}]}
    text = card(
        known, {"n_positions": 1024, "n_embd": 768, "n_head": 12}, made, scores, intervals, guesses, TEXT_ONLY, 7
    )
    text.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.base_model, data.datasets) == (
        "other",
        ["openai-community/gpt2-xl"],
        ["databricks/databricks-dolly-15k"],
    )
    likelihood, accuracy = sorted(data.eval_results, key=lambda result: -result.metric_value)
    assert (accuracy.metric_value, likelihood.metric_value) == (25.5, 30.25)
    assert {accuracy.dataset_type, likelihood.dataset_type} == {
        "allenai/ai2_arc"
    } and accuracy.dataset_revision == "def"
    assert accuracy.metric_name == "Accuracy, %, after fine-tuning on the task"
    assert likelihood.metric_name == "Accuracy by log-likelihood, %"  # of the weights as they are
    for line in (
        "| arc-easy | Accuracy, % | 25.5000 | 20.0000 to 30.0000 | tuned | chance 25.00 |",
        "| arc-easy | Accuracy by log-likelihood, % | 30.2500 |  | these |  |",
        "| `chain/xl/base` | distill | `resources/models/xl-1` | `f3` |",
        "| xl | hub: openai-community/gpt2-xl, revision abc | mit | the model descends from it |",
        "| dolly | hub: databricks/databricks-dolly-15k, revision not pinned | cc-by-sa-3.0 | the model descends from it |",
        "| arc | hub: allenai/ai2_arc, revision def | not stated | scored on it, nothing else |",
    ):
        assert line in text.text.splitlines(), line
    assert "124,439,808 parameters" in text.text and "seed 7" in text.text and "1024 positions" in text.text
    assert "somebody" not in str(text) and "quantisable" not in str(text)
    odd = known.model_copy(update={"shape": Shape(layers=12, heads=12, hidden=756)})
    text = card(odd, {"n_positions": 1024, "n_embd": 756, "n_head": 12}, made, scores, intervals, guesses, TEXT_ONLY, 7)
    assert (
        "positions. It is not quantisable (Q8_0, Q4_0): hidden 756, ffn 3024, not in multiples of 32.\nIt descends"
        in text.text
    )


@pytest.mark.parametrize(("asked", "told", "shown"), [
    (TEXT_ONLY, "It has seen text only, no instructions", 'write("The Moon is")'),
    (Asked(True, "Below: {instruction}\n", False), "The tokenizer's chat template is the prompt", '"role": "user"'),
    (Asked(True, None, True), "with which it was trained and asked here too", '"role": "user"'),
    (Asked(False, None, True), "what it learned here is text only", '"role": "user"'),
])  # fmt: skip
def test_a_card_says_how_the_model_is_asked_and_what_its_files_are(asked, told, shown):
    exported = Exports({"f16": 2000, "q8_0": 1000}, {}, ["a note"], "")
    text = card(PLAIN, CONFIG, MADE, {}, {}, {}, asked, 0, exported).text
    assert "stop_at" not in text
    assert told in text and shown in text
    assert "| type | bytes |\n|---|---|\n| F16 | 2,000 |\n| Q8_0 | 1,000 |\n\n- a note\n" in text
    timed = exported._replace(speeds={"q8_0": {"prompt": 1234.5, "answer": 6.7, "threads": 2}})
    text = card(PLAIN, CONFIG, MADE, {}, {}, {}, asked, 0, timed).text
    assert "|---|---|---|---|\n| F16 | 2,000 |  |  |\n| Q8_0 | 1,000 | 1,234.5 | 6.7 |\n" in text
    assert "tokens a second on 2 threads of" in text
    text = card(PLAIN, CONFIG, MADE, {}, {}, {}, asked, 0, Exports({}, {}, [], "a reason")).text
    assert "There are no GGUF files of it: a reason.\n\n## Scores" in text


def test_what_it_keeps_of_its_ancestor_stands_below_the_scores():
    known = Described(
        study="s", path="desnets/a/x/nested/0", ancestor="a", family="gpt2", shape=Shape(layers=1, heads=1, hidden=8),
        sources={"resources/data/piqa": Origin(name="piqa", source=Source(hub="a/piqa", revision="abc"))},
        scored={"piqa": "resources/data/piqa"}, tasks={"piqa": {"instructions": "piqa"}},
    )  # fmt: skip
    made = {known.path: ({"stage": "assemble", "parents": {}, "settings": {}, "parameters": 9}, "f")}
    scores = {"piqa": {"likelihood_normalised": 57.5, "answer_bits_per_byte": 1.25}}
    kept = [
        {"task": "piqa", "metric": "likelihood_normalised_difference", "value": -6.5, "low": -8.0, "high": -5.0},
        {"task": "all tasks", "metric": "kept", "value": 53.5, "low": 40.0, "high": 60.0},
    ]
    made = card(known, CONFIG, made, scores, {"piqa": {}}, {}, TEXT_ONLY, 0, None, kept)
    by_length = "Accuracy by log-likelihood over the length of the choice, %"
    for line in (
        f"| piqa | {by_length} | 57.5000 |  | these |  |",
        "| piqa | Bits per byte of right answers | 1.2500 |  | these |  |",
        f"| piqa | {by_length}: less the ancestor's | -6.5000 | -8.0000 to -5.0000 | these |  |",
        "| all tasks | Of the ancestor's lead over chance, it keeps, % | 53.5000 | 40.0000 to 60.0000 | these |  |",
    ):
        assert line in made.text.splitlines(), line
    assert {result.metric_type for result in made.data.eval_results} == {"accuracy", "bits_per_byte"}


def test_what_a_model_writes_stands_on_its_card_before_the_scores():
    written = block([{"prompt": "It <is>", "greedy": " a | b", "sampled": "{{ c }}"}], [], "its ancestor")
    text = card(PLAIN, CONFIG, MADE, {}, {}, {}, TEXT_ONLY, 7, written=written).text
    assert f"with seed 7. None of it was chosen; a line break is ⏎.\n\n{written}\n\n## Scores\n" in text
    assert "\n\n## What it writes\n\nHow it goes on from" in text and "sampled at temperature 0.8" in text
    assert "without its chat template" not in text
    chat = card(PLAIN, CONFIG, MADE, {}, {}, {}, Asked(True, None, True), 7, written=written).text
    assert "read as plain text without its chat template: greedily" in chat
    assert "What it writes" not in card(PLAIN, CONFIG, MADE, {}, {}, {}, TEXT_ONLY, 7).text


@pytest.mark.parametrize(("reached", "end"), [(True, "ended it"), (False, "did not end it")])
def test_a_card_says_where_a_recovery_ended(reached, end):
    known = PLAIN.model_copy(update={"path": "desnets/a/x/fit/100k"})
    stopped = {
        "at": 0.95,
        "target": 3.1,
        "ancestor": 2.9,
        "reached": reached,
        "loss": 3.0,
        "tokens": 51200,
        "of": 102400,
    }
    manifest = {"stage": "recover", "parents": {}, "settings": {}, "parameters": 9, "stopped": stopped}
    text = card(known, CONFIG, {known.path: (manifest, "f")}, {}, {}, {}, Asked(False, None, False), 0).text
    assert f"recover, 51,200 of 102,400 tokens, stop_at 0.95 {end}" in text


@pytest.mark.parametrize("prompt", [None, "Below is …\n"])
@pytest.mark.parametrize("begin", [None, "<bos>"])
def test_a_begin_token_is_told_of_and_where_it_would_be_there_twice(begin, prompt):
    asked = Asked(instructed=bool(prompt), prompt=prompt, chat=False, begin=begin)
    text = " ".join(card(PLAIN, CONFIG, MADE, {}, {}, {}, asked, 0).text.split())
    assert ("Every text begins with the token `<bos>`. The tokenizer puts it there" in text) == bool(begin)
    assert ("`add_special_tokens=False`" in text) == bool(begin and prompt)
