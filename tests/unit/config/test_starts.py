"""What is known of a study's starting models before anything runs: tokenizers, sizes, rankings."""

import json
from pathlib import Path

import pytest

from colpipe.config.folders import tokenizer_entries
from colpipe.config.loading import load_study
from colpipe.errors import ColpipeError

SIZES = {"model_type": "gpt2", "vocab_size": 512, "n_positions": 128, "n_layer": 4, "n_head": 3, "n_embd": 24}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The study's inputs are not looked at, but have to be there."""
    monkeypatch.chdir(tmp_path)
    for name in ("inputs/llama", "inputs/boolq", "model"):
        Path(name).mkdir(parents=True)
    Path("inputs/articles.json").touch()


@pytest.fixture
def public(study) -> dict:
    """The tiny study with an ancestor of the chain's own architecture, a folder here, whose tokenizer is the chain's."""
    study["tokenizer"] = {"model": "public"}
    study["models"] = {"public": {"source": {"path": "model"}}}
    study["ancestors"] = {"gpt2": {"model": "public"}}
    study["stages"]["order"] = {"corpus": "stories"}
    write()
    return study


def write(entries: int = 512, **config) -> None:
    """The ancestor's folder: its configuration, and a tokenizer with so many entries, 6 of them added."""
    Path("model/config.json").write_text(json.dumps({**SIZES, **config}))
    vocabulary = {f"w{id}": id for id in range(entries - 6)}
    added = [{"id": entries - 6 + number, "content": f"<{number}>"} for number in range(6)]
    Path("model/tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))


def refused(study: dict) -> str:
    with pytest.raises(ColpipeError) as error:
        load_study(study, "my.yaml")
    return str(error.value)


def test_a_study_that_fits_its_ancestor_is_valid(public):
    assert load_study(public).members() == ["large", "medium", "small"]


def test_a_tokenizer_beyond_the_vocabulary_is_refused_before_anything_runs(public):
    write(518)
    message = (
        "my.yaml: architecture.vocabulary: 512 rows of the embedding are less than the tokenizer's 518 entries (model)"
    )
    assert refused(public).startswith(message)


@pytest.mark.parametrize(
    ("files", "entries"),
    [
        ({"vocab.json": {"a": 0, "b": 1}}, 2),
        ({"vocab.json": {"a": 0, "b": 1}, "added_tokens.json": {"<x>": 4}}, 5),
        ({"tokenizer.json": {"model": {"vocab": [["a", 0.0], ["b", -1.0]]}, "added_tokens": []}}, 2),
        ({"vocab.json": {"a": 0}, "tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "<x>"}}}}, 8),
        ({"tokenizer_config.json": {}}, None),
        ({}, None),
    ],
)
def test_entries_of_a_tokenizer_are_counted_by_their_ids(tmp_path, files, entries):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert tokenizer_entries(tmp_path) == entries


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", {"added_tokens": None}, "added_tokens is None, no list"),
        ("tokenizer.json", {"added_tokens": [3]}, "an added token is 3, no mapping"),
        ("tokenizer.json", {"added_tokens": [{"content": "x"}]}, "the id of {'content': 'x'} is None, no whole number"),
        ("tokenizer.json", {"model": None}, "model is None, no mapping"),
        ("tokenizer.json", {"model": {"vocab": {"a": None}}}, "the id of 'a' is None, no whole number"),
        ("tokenizer.json", {"model": {"vocab": {"a": "0"}}}, "the id of 'a' is '0', no whole number"),
        ("tokenizer.json", {"model": {"vocab": 3}}, "vocab is 3, no list"),
        ("vocab.json", {"a": -1}, "the id of 'a' is -1, no whole number"),
        ("added_tokens.json", {"a": True}, "the id of 'a' is True, no whole number"),
        ("tokenizer_config.json", {"added_tokens_decoder": None}, "added_tokens_decoder is None, no mapping"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "a key of added_tokens_decoder is 'x'"),
    ],
)
def test_a_damaged_tokenizer_is_refused_in_one_line_that_names_the_file(public, name, content, message):
    if name == "vocab.json":  # which is read where there is no other
        Path("model/tokenizer.json").unlink()
    Path("model", name).write_text(json.dumps(content))
    assert refused(public).startswith(f"my.yaml: model/{name}: {message}")
    assert refused(public).count("\n") == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"n_layer": 3},
            "chain.large.shape: layer is 4, more than the 3 of models.public, whose subset it starts as; at",
        ),
        ({"n_embd": 16, "n_head": 2}, "chain.large.shape: hidden is 24, more than the 16 of models.public"),
        ({"n_embd": 48}, "chain.large.shape: head_dim is 8, but 16 in models.public"),
        ({"vocab_size": 500}, "architecture.vocabulary: vocabulary is 512, more than the 500 of models.public"),
        ({"n_positions": 64}, "architecture.positions: position is 128, more than the 64 of models.public"),
        (
            {"model_type": "llama"},
            "ancestors.gpt2.model: public is llama, architecture.family gpt2; an ancestor of another family needs a bridge",
        ),
    ],
)
def test_an_ancestor_that_a_member_cannot_be_cut_out_of_is_refused(public, config, message):
    write(**config)
    assert f"my.yaml: {message}" in refused(public)


def test_an_ancestor_whose_members_start_from_models_of_their_own_may_be_smaller(public):
    write(n_layer=3)
    for member in public["chain"].values():
        member["start"] = "scratch"
    load_study(public)


def test_a_member_deeper_than_its_teacher_is_refused(public):
    public["chain"]["medium"]["shape"]["layers"] = 5
    assert "chain.medium.shape: layer is 5, more than the 4 of large, whose subset it starts as" in refused(public)


def test_a_bridge_that_a_member_cannot_be_cut_out_of_is_refused(study):
    study["models"]["bridge"]["shape"]["layers"] = 3
    assert "chain.large.shape: layer is 4, more than the 3 of models.bridge, whose subset it starts as" in refused(
        study
    )


def test_a_distilled_desnet_that_cannot_be_cut_out_of_the_ancestor_is_refused(public):
    public["initialisers"]["alone"] = {"kind": "distilled"}
    public["desnets"]["upper"]["shape"]["layers"] = 5
    assert "desnets.upper.shape: layer is 5, more than the 4 of models.public, whose subset" in refused(public)


def test_a_given_member_of_another_size_is_refused(public):
    public["models"]["other"] = {"source": {"path": "model"}}
    public["chain"]["medium"].update(start="pretrained", model="other")
    assert "chain.medium.shape: layer is 3, but 4 in models.other" in refused(public)


@pytest.mark.parametrize(
    ("change", "user"),
    [
        (lambda study: None, "chain.small is cut out of medium"),
        (lambda study: study["chain"]["medium"].update(elastic=True), "chain.medium.elastic is cut out of medium"),
        (
            lambda study: study["initialisers"].update(part={"kind": "subset"}),
            r"desnets.lower (part) is cut out of medium",
        ),
    ],
)
def test_the_best_layers_of_a_member_that_nothing_has_ranked_are_refused(public, change, user):
    public["ancestors"]["gpt2"]["select"] = "rank"
    load_study(public)
    public["chain"]["medium"].update(start="scratch")
    change(public)
    assert f"ancestors.gpt2.select: 'rank', but {user}, which starts from a model of its own" in refused(public)
