import json

import numpy as np
import pytest
import torch

from colpipe.errors import ColpipeError
from colpipe.evaluation import perplexity
from colpipe.evaluation.generation import answer, answer_all, batches_by_length
from colpipe.evaluation.likelihood import choice_scores
from colpipe.evaluation.perplexity import held_out_loss
from colpipe.hf import logits as known_logits
from colpipe.hf.counting import forward_of
from colpipe.hf.models import load_model
from colpipe.jobs import usage
from tests.conftest import make_beginning_tokenizer, make_gpt2, make_tokenizer, write_tokens
from tests.unit.hf.stock import CHANGED, stock_model

STOCK = [*CHANGED, "smollm3", "mistral", "olmo2", "phi3"]

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
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]  # with what the tokenizer puts before a text of itself
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


@pytest.mark.parametrize("name", STOCK)
def test_stock_models_answer_in_batches_as_alone(name, tokenizer):
    model = stock_model(name, vocab_size=300, max_position_embeddings=64)
    expected = [greedy_alone(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    assert answer_all(model, tokenizer, PROMPTS, 6, batch_size=3) == expected


def test_prompts_are_answered_behind_the_token_that_the_tokenizer_puts_there(model):
    tokenizer = make_beginning_tokenizer(["some words that are here"], 300)
    expected = [greedy_alone(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    plain = make_tokenizer(["some words that are here"], 299)
    assert expected != [greedy_alone(model, plain, prompt, 6) for prompt in PROMPTS]
    assert answer_all(model, tokenizer, PROMPTS, 6, batch_size=3) == expected
    written = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]  # as a chat template has it
    assert answer_all(model, tokenizer, written, 6, batch_size=3) == expected
    whole = answer_all(model, tokenizer, PROMPTS, 6, batch_size=3, whole=True)
    assert [text.startswith(prompt) for text, prompt in zip(whole, PROMPTS, strict=True)] == [True] * 5


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


@pytest.mark.parametrize(("length", "asked"), [(None, None), (16, None), (16, 64), (None, 9999), (None, 70)])
def test_held_out_loss_is_of_the_text_behind_the_begin_token(model, tmp_path, length, asked):
    """By a plain loop over all of the text but what fills no block, or over evenly spread blocks of it."""
    tokens = np.random.default_rng(0).integers(0, 299, 63 * 8 + 5, dtype=np.uint16)
    write_tokens(tmp_path, "test", tokens)
    counts = {"tokens": len(tokens), "bytes": 4 * len(tokens)}
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"test": counts}, "begin": 299}))
    text = (length or 64) - 1
    starts = [start * text for start in range(len(tokens) // text)]
    if asked in (64, 70):
        wanted = asked // (text + 1)
        starts = [starts[place * len(starts) // wanted] for place in range(wanted)]
    nats = []
    for start in starts:
        ids = [299, *tokens[start : start + text].tolist()]
        with torch.no_grad():
            steps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        nats += [-steps[at, ids[at + 1]].item() for at in range(text)]
    found = held_out_loss(model, tmp_path, length=length, tokens=asked)
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(np.mean(nats) / 4 / np.log(2), rel=1e-5)


def test_a_short_split_is_one_block_with_its_begin_token(model, tmp_path):
    write_tokens(tmp_path, "test", np.arange(40, dtype=np.uint16))
    manifest = {"counts": {"test": {"tokens": 40, "bytes": 160}}, "begin": 299}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with torch.no_grad():
        log_probs = model(torch.tensor([[299, *range(40)]])).logits[0, :-1].double().log_softmax(-1)
    own = -log_probs[torch.arange(40), torch.arange(40)].mean().item()
    for asked in (None, 8, 40, 1000):
        assert held_out_loss(model, tmp_path, tokens=asked)["loss"] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_losses_of_blocks_are_those_of_full_logits(model, tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.setattr(known_logits, "HEADS", {})
    tokens = np.random.default_rng(1).integers(0, 300, 64 * 70, dtype=np.uint16)
    write_tokens(tmp_path, "test", tokens)
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"test": {"tokens": len(tokens), "bytes": 1}}}))
    ids = torch.from_numpy(tokens.astype(np.int64)).view(70, 64)
    with torch.inference_mode():
        logits = model(ids).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none").mean(1)
    before = dict(usage.counted)
    found = perplexity.block_losses(model, tmp_path)
    assert found.tolist() == pytest.approx(expected.double().tolist(), rel=1e-6)
    cost = forward_of(model)
    assert usage.counted["flops"] - before["flops"] == 70 * (cost.layers(1, 64) + 64 * cost.head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", STOCK)
@torch.inference_mode()
def test_losses_are_those_of_stock_logits(name, dtype):
    model, ids = stock_model(name, vocab_size=300).to(dtype), torch.arange(3 * 32).view(3, 32) * 7 % 300
    expected = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].float().mT, ids[:, 1:], reduction="none")
    found = perplexity.token_losses(model, ids)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05  # of a product whose sums bfloat16 may round in another order
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


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


SETTINGS = [
    {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.2},
    {"repetition_penalty": 3.0},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 6},
    {"forced_bos_token_id": 5},
    {"forced_eos_token_id": 5},
    {"suppress_tokens": [44, 45, 46, 47, 48, 49]},
    {"begin_suppress_tokens": list(range(200))},
    {"bad_words_ids": [[number] for number in range(100)]},
    {"sequence_bias": [[[7], 100.0]]},
    {"max_length": 4},
    {"max_new_tokens": 2},
    {"num_beams": 4},
    {"num_beams": 4, "num_return_sequences": 2},
    {"return_dict_in_generate": True, "output_scores": True},
    {"stop_strings": ["a"]},
    {"guidance_scale": 3.0},
    {"temperature": 0.9},
    {"num_return_sequences": 3},
    {"cache_implementation": "static"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_greedy_answers_are_greedy_whatever_the_model_says(model, tokenizer, tmp_path, settings):
    expected = [greedy_alone(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    (tmp_path / "model/generation_config.json").write_text(json.dumps({"eos_token_id": 0, **settings}))
    told = load_model(tmp_path / "model")
    assert answer_all(told, tokenizer, PROMPTS, 6, batch_size=3) == expected
    plain = answer_all(model, tokenizer, PROMPTS, 6, batch_size=3, temperature=1.0, seed=1)
    assert answer_all(told, tokenizer, PROMPTS, 6, batch_size=3, temperature=1.0, seed=1) == plain


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_every_end_of_text_of_the_model_ends_an_answer(model, tokenizer, tmp_path, where):
    """Instruct models end a turn with another token than a document; marks are not seen in the answer's text."""
    ids = tokenizer("some words here", return_tensors="pt")["input_ids"]
    third = [int(model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] + k]) for k in range(8)]
    end = next(token for number, token in enumerate(third) if number and token not in third[:number])
    place = third.index(end)
    path = tmp_path / "model" / where
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, end]}))
    text = answer_all(load_model(tmp_path / "model"), tokenizer, ["some words here"], 8, 1)[0]
    assert text == tokenizer.decode(third[: place + 1], skip_special_tokens=True).strip()
    assert text != tokenizer.decode(third, skip_special_tokens=True).strip()


def broken(model, value: float):
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = value
    return model


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    write_tokens(tmp_path / "corpus", "test", np.arange(64 * 3, dtype=np.uint16))
    counts = {"test": {"tokens": 192, "bytes": 768}}
    (tmp_path / "corpus/manifest.json").write_text(json.dumps({"counts": counts}))
    return tmp_path / "corpus"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_named_not_scored(model, tokenizer, corpus, value):
    cause = (
        r"model: its .*: nan, no number to score; its transformer\.h\.1\.mlp\.c_fc\.weight has 1 of 256 values that are"
    )
    row = {"choices": ["a", "b"], "output": "a", "likelihood": {"contexts": ["x", "x"], "continuations": [" a", " b"]}}
    for call in (
        lambda: held_out_loss(broken(model, value), corpus),
        lambda: answer_all(broken(model, value), tokenizer, PROMPTS, 4, 2),
        lambda: answer_all(broken(model, value), tokenizer, PROMPTS, 4, 2, temperature=1.0),
        lambda: choice_scores(broken(model, value), tokenizer, [row]),
    ):
        with pytest.raises(ColpipeError, match=cause):
            call()


def test_logits_that_overflow_are_named(model, tokenizer):
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(3e38)
    with pytest.raises(ColpipeError, match="its weights are finite, but its logits overflow float32"):
        answer_all(model, tokenizer, PROMPTS, 4, 2)


def test_a_perplexity_beyond_a_float_is_infinite_not_an_error(model, corpus):
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(1e4)
    found = held_out_loss(model, corpus)
    assert 709 < found["loss"] < float("inf") and found["perplexity"] == float("inf")
