import json

import numpy as np
import pytest
import torch

from colpipe.evaluation.generation import answer, answer_all, batches_by_length
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.hf.models import load_model
from tests.conftest import make_gpt2, make_tokenizer, write_tokens

PROMPTS = ["a", "a much longer prompt than that", "b c", "some words here", "z " * 12]


@pytest.fixture
def tokenizer():
    return make_tokenizer(["some words that are here"], 300)


@pytest.fixture
def model(tmp_path):
    make_gpt2(tmp_path / "model", 2, 2, 8, seed=6, vocabulary=300, positions=64)
    return load_model(tmp_path / "model").eval()


def greedy_alone(model, tokenizer, prompt: str, count: int) -> str:
    """One prompt, no padding, no cache: the definition of greedy decoding."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            token = model(ids).logits[0, -1].argmax()
            ids = torch.cat([ids, token[None, None]], 1)
            if token == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


def test_batched_answers_equal_single_ones(model, tokenizer):
    expected = [greedy_alone(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    assert answer_all(model, tokenizer, PROMPTS, 6, batch_size=3) == expected
    assert answer_all(model, tokenizer, PROMPTS, 6, batch_size=5) == expected
    assert len(set(expected)) > 1


def test_sampling_is_seeded(model, tokenizer):
    first = answer(model, tokenizer, PROMPTS, 8, 1.0, seed=1)
    assert first == answer(model, tokenizer, PROMPTS, 8, 1.0, seed=1)
    assert first != answer(model, tokenizer, PROMPTS, 8, 1.0, seed=2)


def test_batches_hold_every_prompt_once_longest_first(tokenizer):
    batches = batches_by_length(PROMPTS, tokenizer, 2)
    assert sorted(index for batch in batches for index in batch) == list(range(5))
    assert {1, 4} == set(batches[0])


def test_held_out_loss_is_the_mean_over_predicted_tokens(model, tmp_path):
    tokens = np.random.default_rng(0).integers(0, 300, 64 * 70, dtype=np.uint16)
    write_tokens(tmp_path, "test", tokens)
    total, count = 0.0, 0
    for start in range(0, len(tokens), 64):
        ids = torch.from_numpy(tokens[start : start + 64].astype(np.int64))[None]
        with torch.no_grad():
            log_probs = model(ids).logits[0].double().log_softmax(-1)
        total -= sum(log_probs[position, ids[0, position + 1]].item() for position in range(63))
        count += 63
    counts = {"tokens": len(tokens), "bytes": 4 * len(tokens)}
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"test": counts}}))
    found = held_out_loss(model, tmp_path)
    assert found["loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(total / count / 4 / 0.6931472, rel=1e-5)


def test_a_split_shorter_than_the_models_longest_sequence_is_one_block(tmp_path):
    model = make_gpt2(tmp_path / "model", 2, 2, 16, seed=0, vocabulary=300, positions=64)
    write_tokens(tmp_path, "test", np.arange(40, dtype=np.uint16))
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"test": {"tokens": 40, "bytes": 160}}}))
    with torch.no_grad():
        log_probs = model(torch.arange(40)[None]).logits[0, :-1].double().log_softmax(-1)
    own = -log_probs[torch.arange(39), torch.arange(1, 40)].mean().item()
    assert held_out_loss(model, tmp_path)["loss"] == pytest.approx(own, rel=1e-5)


def test_what_looks_like_a_special_token_in_a_prompt_is_text(model, tokenizer, monkeypatch):
    seen = {}
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **given: seen.update(given) or generate(**given))
    answer(model, tokenizer, ["some </s> words", [5, tokenizer.eos_token_id, 6]], 1, 0.0, seed=0)
    (text, mask), (ids, other) = zip(seen["input_ids"].tolist(), seen["attention_mask"].tolist(), strict=True)
    assert all(mask) and tokenizer.eos_token_id not in text and tokenizer.decode(text) == "some </s> words"
    assert [token for token, kept in zip(ids, other, strict=True) if kept] == [5, tokenizer.eos_token_id, 6]
