"""Ends of a text, and generation settings that can be saved again."""

import json
import logging

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from colpipe.errors import ColpipeError
from colpipe.hf import generation_config
from colpipe.hf.generation_config import end_ids
from colpipe.hf.models import load_model, save_model
from colpipe.hf.tokenizers import load_tokenizer, require_rows
from tests.conftest import make_gpt2, make_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A model whose tokenizer ends a text with id 0, and has a chat template."""
    make_gpt2(tmp_path / "model", 1, 1, 8, seed=0, vocabulary=300)
    tokenizer = make_tokenizer(["some words"], 300)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def say(folder, **settings) -> None:
    (folder / "generation_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"temperature": 0.9, "top_p": 0.6}, "temperature 0.9, top_p 0.6"),  # as vicuna and Llama-2-chat have it
        ({"do_sample": False, "top_k": 20, "min_p": 0.1}, "top_k 20, min_p 0.1"),
        ({"length_penalty": 2.0, "early_stopping": True}, "length_penalty 2.0, early_stopping True"),
        ({"pad_token_id": -1}, "pad_token_id -1"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"num_return_sequences": 3}, "num_return_sequences 3"),
        ({"watermarking_config": {"a": 1}}, "watermarking_config {'a': 1}"),
        ({"do_sample": True, "temperature": 0.0}, "temperature 0.0"),
        ({"do_sample": True, "top_k": -3, "top_p": 5.0}, "top_k -3, top_p 5.0"),
        ({"do_sample": "true"}, "do_sample 'true'"),
        ({"repetition_penalty": -1}, "repetition_penalty -1"),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, None),
    ],
)
def test_settings_that_transformers_refuses_to_save_are_left_out_and_said_once(folder, caplog, settings, lost):
    say(folder, eos_token_id=[0, 7], **settings)
    generation_config._said.clear()
    with caplog.at_level(logging.WARNING):
        models = [load_model(folder) for _ in range(2)]
    expected = [f"{folder / 'generation_config.json'}: left out {lost}: transformers would refuse to save or use it"]
    assert [each.getMessage() for each in caplog.records if "left out" in each.getMessage()] == (
        expected if lost else []
    )
    save_model(models[0], load_tokenizer(folder), folder / "saved")
    saved = AutoModelForCausalLM.from_pretrained(folder / "saved").generation_config
    assert saved.eos_token_id == [0, 7]
    assert lost or {key: getattr(saved, key) for key in settings} == settings


def test_settings_in_an_older_config_are_mended_too(folder):
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "temperature": 0.5}))
    save_model(load_model(folder), load_tokenizer(folder), folder / "saved")


def test_settings_that_are_no_json_are_refused(folder):
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ColpipeError, match=r"generation_config\.json: cannot be read: Expecting property name"):
        load_model(folder)


@pytest.mark.parametrize(
    ("generation", "configuration", "ends"),
    [([0, 7], 0, [0, 7]), ([9, 7], 5, [0, 9, 7, 5]), (7, [0, 8], [0, 7, 8]), (0, 50256, [0]), (None, None, [0])],
)
def test_all_ends_of_a_text_count_and_are_saved(folder, generation, configuration, ends):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": configuration}))
    say(folder, eos_token_id=generation)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert end_ids(model, tokenizer) == ends
    save_model(model, tokenizer, folder / "saved")
    saved = AutoModelForCausalLM.from_pretrained(folder / "saved")
    assert saved.generation_config.eos_token_id == (ends if len(ends) > 1 else ends[0])
    assert saved.config.eos_token_id == (configuration if isinstance(configuration, list) else 0)
    assert end_ids(saved, tokenizer)[0] == 0 and set(end_ids(saved, tokenizer)) == set(ends)
    assert AutoTokenizer.from_pretrained(folder / "saved").chat_template == "{{ messages[0]['content'] }}"


@pytest.mark.parametrize(
    ("place", "value", "lost", "ends"),
    [
        ("generation_config.json", -1, [-1], [0]),
        ("generation_config.json", True, [True], [0]),
        ("generation_config.json", [[5]], [[5]], [0]),
        ("generation_config.json", [7, -1, True], [-1, True], [0, 7]),
        ("config.json", -1, [-1], [0]),
    ],
)
def test_what_is_no_id_ends_no_text_and_is_said(folder, caplog, place, value, lost, ends):
    say(folder, eos_token_id=0)
    settings = json.loads((folder / place).read_text())
    (folder / place).write_text(json.dumps({**settings, "eos_token_id": value}))
    generation_config._said.clear()
    with caplog.at_level(logging.WARNING):
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        assert sorted(end_ids(model, tokenizer)) == ends
    assert f"left out eos_token_id {lost!r}: transformers would refuse to save or use it" in caplog.text
    save_model(model, tokenizer, folder / "saved")


def test_a_tokenizer_beyond_the_embedding_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    require_rows(tokenizer, len(tokenizer), "architecture.vocabulary")
    tokenizer.add_tokens(["<tool>"])
    message = f"{folder}: 258 rows of the embedding are less than the tokenizer's 26[0-9] entries .*; ids from 258 on"
    with pytest.raises(ColpipeError, match=message):
        require_rows(tokenizer, 258, str(folder))
