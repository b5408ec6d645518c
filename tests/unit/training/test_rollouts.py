"""Mixed sampling against one row at a time without padding or cache; rewards, returns and advantages against loops."""

import math

import pytest
import torch

from colpipe.config.stages import Rollout
from colpipe.errors import ColpipeError
from colpipe.training.rollouts import advantages, chosen_prompts, returns, rewards, sample, whitened
from tests.conftest import make_model
from tests.unit.hf.stock import stock_model
from tests.unit.learngene.tiny import architecture, shape

PROMPTS = [torch.tensor(ids) for ids in ([5, 9, 11, 2], [7], [3, 1, 4, 1, 5, 9], [30, 31])]
LIMITS = [9, 9, 6, 4]
SHARES = {"student": 0.8, "teacher": 0.2}
END = 0


STOCK = [
    "granite",
    "gemma3_text",
    "gemma2",
    "smollm3",
    "mistral",
    "olmo2",
    "phi3",
]  # some look through windows of 4 tokens


@pytest.fixture(params=["gpt2", "gpt_neox", "llama", "qwen3", *STOCK])
def models(request, tmp_path):
    family = request.param
    if family in STOCK:
        student, teacher = (stock_model(family, seed, vocab_size=size) for seed, size in ((1, 47), (2, 50)))
        for model in (student, teacher):
            model.get_output_embeddings().weight.data /= 3  # less sure of themselves: something to sample
        return {"student": student, "teacher": teacher}
    large, small = architecture(family, True), architecture(family, True).model_copy(update={"vocabulary": 47})
    return {
        "student": make_model(tmp_path / "student", small, shape(family, 2, 2, 16), 1),
        "teacher": make_model(tmp_path / "teacher", large, shape(family, 3, 3, 24), 2),  # three tokens more, of padding
    }


def alone(model, row, vocabulary: int) -> torch.Tensor:
    """Log-probabilities before each token of an answer, from the whole sequence at once: no padding, no cache."""
    ids = torch.cat([row["prompt"], row["answer"]])[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(row["prompt"]) - 1 : -1, :vocabulary]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("shares", [SHARES, {"student": 1.0}, {"teacher": 1.0}], ids=["mixed", "student", "teacher"])
def test_what_is_sampled_and_its_probabilities(models, shares):
    vocabulary = 50 if shares == {"teacher": 1.0} else 47
    rows = sample(models, shares, PROMPTS, LIMITS, [END], seed=3)
    chance = torch.rand(len(PROMPTS), max(LIMITS), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lengths = set()
    for number, (row, prompt, limit) in enumerate(zip(rows, PROMPTS, LIMITS, strict=True)):
        assert torch.equal(row["prompt"], prompt)
        lengths.add(len(row["answer"]))
        assert len(row["answer"]) == limit or row["answer"][-1] == END
        assert END not in row["answer"][:-1]
        mixed = 0
        for name, share in shares.items():
            log = alone(models[name], row, vocabulary)
            torch.testing.assert_close(row[name], log.gather(1, row["answer"][:, None])[:, 0], rtol=1e-4, atol=1e-4)
            mixed = mixed + share * log.double().exp()
        for step, token in enumerate(row["answer"].tolist()):
            assert row["sampled"][step].item() == pytest.approx(mixed[step, token].log().item(), rel=1e-3, abs=1e-4)
            below = mixed[step, :token].sum().item()  # the token whose stretch of 0 … 1 holds the random number
            assert below - 1e-5 <= chance[number, step].item() <= below + mixed[step, token].item() + 1e-5
        assert not {"student", "teacher"} - set(shares) & set(row)
    assert len(lengths) > 1


def test_any_end_of_a_text_ends_a_completion(models):
    """Rows have random numbers of their own, so those with more ends are the beginnings of the others."""
    long = sample(models, SHARES, PROMPTS, LIMITS, [END], seed=3)
    longest = max(range(len(long)), key=lambda number: len(long[number]["answer"]))
    other = int(long[longest]["answer"][2])
    short = sample(models, SHARES, PROMPTS, LIMITS, [END, other], seed=3)
    for whole, row in zip(long, short, strict=True):
        tokens = whole["answer"].tolist()
        expected = tokens[: tokens.index(other) + 1] if other in tokens else tokens
        assert row["answer"].tolist() == expected
    assert len(short[longest]["answer"]) <= 3 < len(long[longest]["answer"])


def test_completions_of_a_model_that_is_not_finite_are_refused(models):
    with torch.no_grad():
        next(models["teacher"].parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ColpipeError, match=r"its logits for a completion: nan, no number to score; its .* has 1 of"):
        sample(models, SHARES, [torch.tensor([0])], [4], [END], seed=0)


def test_preallocated_caches_change_nothing(models):
    """The same tokens behind left padding, though rows end and leave the batch, and layers look through windows."""
    grown, preallocated = (sample(models, SHARES, PROMPTS, LIMITS, [END], 3, way) for way in (False, True))
    assert len({len(row["answer"]) for row in grown}) > 1
    for one, other in zip(grown, preallocated, strict=True):
        assert torch.equal(one["answer"], other["answer"])
        for name in ("student", "teacher", "sampled"):
            torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-6)


def test_frequencies_are_those_of_the_mixture(models):
    rows = sample(models, SHARES, [PROMPTS[0]] * 4000, [1] * 4000, [END], seed=0)
    counts = torch.bincount(torch.cat([row["answer"] for row in rows]), minlength=47)
    expected = sum(share * alone(models[name], rows[0], 47)[0].exp() for name, share in SHARES.items())
    deviation = (4000 * expected * (1 - expected)).sqrt()
    assert ((counts - 4000 * expected).abs() <= 5 * deviation + 1).all()


def test_a_seed_gives_the_same_again_and_another_does_not(models):
    first, again, other = (sample(models, SHARES, PROMPTS, LIMITS, [END], seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a)
    assert not all(torch.equal(a["answer"], b["answer"]) for a, b in zip(first, other, strict=True))


def made_up(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 4, 7, 2, 5][:count]
    return [
        {name: -3 * torch.rand(length, generator=generator) for name in ("student", "teacher")} for length in lengths
    ]


@pytest.mark.parametrize("count_own", [False, True])
def test_rewards_returns_and_advantages(count_own):
    settings = Rollout(discount=0.9, reward_scale=0.5, reward_limit=2.0, count_own=count_own)
    samples, whole = made_up(5), []
    for each in samples:
        length = len(each["student"])
        reward = [
            min(max((each["teacher"][t].item() - each["student"][t].item()) / 0.5, -2.0), 2.0) for t in range(length)
        ]
        assert rewards(each, settings).tolist() == pytest.approx(reward)
        discounted = [
            sum(0.9 ** (k - t) * reward[k] for k in range(t if count_own else t + 1, length)) / (length - t)
            for t in range(length)
        ]
        assert returns(torch.tensor(reward), settings).tolist() == pytest.approx(discounted, abs=1e-6)
        whole.append(discounted)
    flat = [value for row in whole for value in row]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat) + 1e-8)
    for found, row in zip(advantages(samples, settings), whole, strict=True):
        assert found.tolist() == pytest.approx([(value - mean) / deviation for value in row], abs=1e-5)


def test_each_update_may_whiten_its_own_with_the_padding():
    settings, samples = Rollout(whiten="update"), made_up(3)
    found = advantages(samples, settings)
    plain = [returns(rewards(each, settings), settings).float() for each in samples]
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    padded = torch.stack([torch.nn.functional.pad(each, (0, 9 - len(each))) for each in found]).double()
    expected = (padded - padded.mean()) * torch.rsqrt(padded.var(unbiased=False) + 1e-8)
    for one, other in zip(whitened(found, 9), expected, strict=True):
        torch.testing.assert_close(one, other[: len(one)].float())


def test_rewards_reach_their_limit():
    assert (rewards({"student": torch.zeros(1), "teacher": torch.tensor([-90.0])}, Rollout()) == -100).all()


def test_every_pass_over_the_prompts_answers_each_once():
    chosen = [index for number in range(6) for index in chosen_prompts(8, number, 4, seed=0)]
    passes = [chosen[start : start + 8] for start in range(0, 24, 8)]
    assert all(sorted(each) == list(range(8)) for each in passes)
    assert passes[0] != passes[1]
    assert [len(set(chosen_prompts(3, number, 7, seed=0))) for number in range(3)] == [3, 3, 3]
