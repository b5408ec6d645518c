import json
from pathlib import Path

import pytest

from colpipe.data.chat import chat_template, paper_template
from colpipe.data.encoding import encode_prompts
from colpipe.data.prompts import prompt
from colpipe.hf.tokenizers import load_tokenizer
from colpipe.stages.publish import copy_model
from tests.conftest import make_beginning_tokenizer, make_gpt2, make_tokenizer


@pytest.fixture
def model(tmp_path) -> Path:
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=0, vocabulary=300, positions=64)
    make_tokenizer(["the old stone school by the river"], 300).save_pretrained(tmp_path / "model")
    (tmp_path / "published").mkdir()
    return tmp_path / "model"


def test_the_chat_template_is_the_prompt_of_training(model):
    from transformers import AutoTokenizer

    folder = model.with_name("published")
    copy_model(model, folder, chat_template())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for asked in ({"content": " Name a city.\n"}, {"content": "Name the city.", "input": "It is old.\n\nAnd {stone}."}):
        text = tokenizer.apply_chat_template([{"role": "user", **asked}], tokenize=False, add_generation_prompt=True)
        assert text == prompt(asked["content"], asked.get("input", ""))


@pytest.mark.parametrize("begins", [True, False])
def test_a_pipeline_of_a_published_folder_reads_what_its_model_was_trained_on(model, begins):
    """With the begin token, where there is one, and not twice: neither in a chat nor in a plain text."""
    from transformers import AutoTokenizer, pipeline
    from transformers.utils.chat_template_utils import Chat

    folder = model.with_name("published")
    if begins:
        make_beginning_tokenizer(["the old stone school by the river"], 300).save_pretrained(model)
    own = load_tokenizer(model)
    copy_model(model, folder, paper_template(own))
    ask, text = pipeline("text-generation", str(folder)), prompt("Name a city.")
    chat = ask.preprocess(Chat([{"role": "user", "content": "Name a city."}]))["input_ids"].tolist()
    assert chat == encode_prompts(own, [text]) == ask.preprocess(text)["input_ids"].tolist()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    written = tokenizer.apply_chat_template([{"role": "user", "content": "Name a city."}], tokenize=False)
    assert tokenizer(written, add_special_tokens=False)["input_ids"] == chat[0]
    assert chat[0].count(tokenizer.convert_tokens_to_ids("<s>")) == begins


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_an_ancestors_chat_template_stays_where_the_papers_prompts_were_not_learned(model, place):
    from transformers import AutoTokenizer

    if place == "chat_template.jinja":
        (model / place).write_text("{{ messages[0].content }}!")
    else:
        known = json.loads((model / place).read_text())
        (model / place).write_text(json.dumps({**known, "chat_template": "{{ messages[0].content }}!"}))
    copy_model(model, model.with_name("published"), None)
    tokenizer = AutoTokenizer.from_pretrained(model.with_name("published"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"


def test_every_end_of_a_text_is_published(model):
    settings = {"eos_token_id": [0, 7], "temperature": 0.9}
    (model / "generation_config.json").write_text(json.dumps(settings))
    copy_model(model, model.with_name("published"), None)
    found = json.loads((model.with_name("published") / "generation_config.json").read_text())
    assert (found["eos_token_id"], found["do_sample"], found["pad_token_id"]) == ([0, 7], False, 0)


def test_weights_are_linked_and_the_model_keeps_its_files(model):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    folder = model.with_name("published")
    copy_model(model, folder, None)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert (folder / "model.safetensors").stat().st_ino == (model / "model.safetensors").stat().st_ino
    assert (folder / "config.json").stat().st_ino != (model / "config.json").stat().st_ino
    assert not (folder / "chat_template.jinja").exists()


def test_weights_are_copied_where_no_link_can_be(model, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    copy_model(model, model.with_name("published"), None)
    linked = model.with_name("published") / "model.safetensors"
    assert linked.read_bytes() == (model / "model.safetensors").read_bytes()
