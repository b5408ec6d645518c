"""What models make of the beginnings of texts: transformers' own `generate` says what is right."""

import pytest
import torch

from colpipe.config.parts import Architecture, Shape
from colpipe.config.stages import OPENINGS
from colpipe.evaluation.continuations import continuations
from colpipe.hf.models import load_model
from tests.conftest import make_beginning_tokenizer, make_model, make_tokenizer, make_word_tokenizer

PROMPTS = ["the old stone", "a", "the old school by the river is made of", "no <|x|> </s> here"]


@pytest.fixture(params=["gpt2", "llama"])
def model(tmp_path, request):
    architecture = Architecture(family=request.param, vocabulary=300, positions=64)
    make_model(tmp_path / "model", architecture, Shape(layers=2, heads=2, hidden=8), seed=3)
    return load_model(tmp_path / "model").eval()


@pytest.fixture(params=[make_tokenizer, make_beginning_tokenizer], ids=["plain", "begins"])
def tokenizer(request):
    """The second puts a token before a text, which `generated` and colpipe both let it do."""
    return request.param(["the old stone school by the river is here, and it is made of stone"], 300)


def generated(model, tokenizer, prompts: list[str], seed: int = 0, **settings) -> list[str]:
    """What transformers itself generates after some prompts, in one batch."""
    tokenizer.padding_side = "left"
    given = tokenizer(prompts, return_tensors="pt", padding=True, split_special_tokens=True)
    torch.manual_seed(seed)
    ids = model.generate(**given, max_new_tokens=6, pad_token_id=0, **settings)
    return tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)


def test_greedy_is_what_each_prompt_gives_alone(model, tokenizer):
    found = continuations(model, tokenizer, PROMPTS, 6, 0)
    assert [each["prompt"] for each in found] == PROMPTS
    expected = [generated(model, tokenizer, [prompt], do_sample=False)[0] for prompt in PROMPTS]
    assert [each["greedy"] for each in found] == expected and len(set(expected)) > 1


def test_a_sample_is_of_the_seed_and_cooler_than_the_model(model, tokenizer):
    for seed in (0, 5):
        found = continuations(model, tokenizer, PROMPTS[:1], 6, seed)
        cooler = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0}
        assert [each["sampled"] for each in found] == generated(model, tokenizer, PROMPTS[:1], seed, **cooler)
    both = [continuations(model, tokenizer, PROMPTS, 6, seed) for seed in (0, 0, 5)]
    assert both[0] == both[1] and both[0] != both[2]
    assert [each["greedy"] for each in both[0]] == [each["greedy"] for each in both[2]]


def test_blanks_around_a_continuation_stay(model, tokenizer, monkeypatch):
    ids = {
        text: tokenizer(text)["input_ids"] for text in ("the old", "the old stone is here")
    }  # one begins as the other ends
    assert ids["the old stone is here"][: len(ids["the old"])] == ids["the old"]
    said = torch.tensor([ids["the old stone is here"]])
    monkeypatch.setattr(model, "generate", lambda **given: said)
    assert continuations(model, tokenizer, ["the old"], 3, 0) == [
        {"prompt": "the old", "greedy": " stone is here", "sampled": " stone is here"}
    ]


def test_what_cannot_be_continued_says_why(model, tokenizer):
    long = "stone " * 60
    ids = tokenizer(long)["input_ids"]
    found = continuations(model, tokenizer, [long, "a"], 6, 0)
    assert found[0] == {
        "prompt": long,
        "problem": f"its {len(ids)} tokens and 6 more are longer than the model's 64 positions",
    }
    assert found[1] == continuations(model, tokenizer, ["a"], 6, 0)[0]
    words = make_word_tokenizer()
    [unknown, known] = continuations(model, words, ["the capital of France", "the old river"], 2, 0)
    assert unknown["problem"] == "the tokenizer does not know 2 of its 4 tokens" and "greedy" in known
    [nothing] = continuations(model, words, [" "], 2, 0)
    assert nothing["problem"] == "the tokenizer makes no token of it"


def test_the_default_beginnings_end_where_a_word_follows():
    assert len(OPENINGS) == len(set(OPENINGS)) == 5
    assert all(text == text.strip() and not text.endswith(".") for text in OPENINGS)
