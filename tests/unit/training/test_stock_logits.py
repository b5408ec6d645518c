"""Losses that are made of hidden states and heads are those of the stock models' own logits, scaled or capped or neither."""

import pytest
import torch
from torch.nn.functional import cross_entropy as plain_cross_entropy
from torch.nn.functional import kl_div

from colpipe.config.parts import Runtime
from colpipe.config.stages import Distill, Elastic, Training
from colpipe.data.tokens import IGNORE, Rows, collate
from colpipe.errors import ColpipeError
from colpipe.hf import logits as module
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.weights import Weights
from colpipe.training import signal
from colpipe.training.distillation import distill
from colpipe.training.elastic import Submodels
from colpipe.training.objectives import chunked
from colpipe.training.projection import all_places, project
from colpipe.training.supervised import fine_tune
from colpipe.training.trainer import train
from tests.conftest import make_tokenizer, open_job
from tests.unit.hf.stock import CHANGED, MODELS, stock_model
from tests.unit.training.test_distillation import MATERIAL, SETTINGS
from tests.unit.training.test_objectives import OURS, PLAIN, N, V

PAIRS = [
    ("granite", "llama"),
    ("llama", "granite"),
    ("granite by 6", "gemma3_text"),
    ("gemma3_text", "granite"),
    ("gemma3_text tied", "gemma2"),
]
IDS = (torch.arange(N + 1) * 5 + 2)[None] % V
EVERYWHERE = all_places(IDS)


@pytest.fixture
def new_job(tmp_path):
    jobs = []

    def make(stage: str, settings, **runtime):
        place = tmp_path / f"{stage}-{len(jobs)}"
        jobs.append(open_job(stage, place, place / "work", settings, Runtime(device="cpu", **runtime), {}, 0))
        return jobs[-1]

    yield make
    for job in jobs:
        job.close()


def of_stock(model) -> list[list[torch.Tensor]]:
    """Probabilities of the stock forward where it predicts, number by number."""
    return [list(row) for row in model(input_ids=IDS).logits[0, :-1].softmax(-1)]


def close(found: list, expected: list, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("objective", OURS)
@pytest.mark.parametrize("pair", PAIRS, ids=[" of ".join(pair) for pair in PAIRS])
def test_losses_and_gradients_are_those_of_the_stock_logits(pair, objective):
    student, teacher = (stock_model(name, seed).double() for seed, name in enumerate(pair))
    with torch.no_grad():
        p, said = of_stock(teacher), project(teacher, {"input_ids": IDS}, EVERYWHERE)
    q = of_stock(student)
    expected = sum(PLAIN[objective](q[row], p[row], row) for row in range(N))
    learns = list(student.parameters())
    wanted = torch.autograd.grad(expected, learns)
    for chunk in (4 * V, 1000 * V):
        found = chunked(OURS[objective], project(student, {"input_ids": IDS}, EVERYWHERE), said, chunk)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        # norms round to float32 in their backward pass, whatever they are given
        close(torch.autograd.grad(found, learns), wanted, 1e-5)


class _Wrapped:
    """As DistributedDataParallel has it: called as a whole, the model inside it."""

    def __init__(self, model):
        self.module = model

    def __call__(self, **inputs):
        return self.module(**inputs)


@pytest.mark.parametrize("name", CHANGED)
@torch.no_grad()
def test_a_wrapped_model_and_its_cached_signal_say_the_same(name):
    model = stock_model(name)
    log_p = model(input_ids=IDS).logits[0, :-1].log_softmax(-1)
    for each in (model, _Wrapped(model)):
        found = project(each, {"input_ids": IDS}, EVERYWHERE).log_probabilities(slice(None))
        torch.testing.assert_close(found, log_p)
    top = signal._most_probable(model, {"input_ids": IDS, "labels": IDS}, 5, V)
    torch.testing.assert_close(top.values, log_p.topk(5).values)
    assert torch.equal(top.indices, log_p.topk(5).indices)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_of_training_is_the_stock_one(name, new_job):
    settings, rows = (
        Training(steps=1, batch_size=6, max_length=12, learning_rate=1e-3, evaluations=1),
        MATERIAL.items[:6],
    )
    model, batch = stock_model(name, vocab_size=50), collate(0)(rows)
    expected = stock_loss(model, batch)
    job = new_job("pretrain", settings, micro_batch=2)
    train(job, model, settings, rows, collate(0), validation=rows)
    losses = {record["split"]: record for record in reversed(job.metrics())}
    assert losses["train"]["loss"] == pytest.approx(expected, rel=1e-4)
    assert losses["validation"]["loss"] == pytest.approx(expected, rel=1e-4)


def stock_loss(model, batch) -> float:
    """Mean over the tokens with loss, from a stock forward of all."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model(**given).logits[:, :-1]
    return plain_cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE).item()


@pytest.mark.parametrize("objective", ["forward_kl", "minillm"])
@pytest.mark.parametrize("pair", [("llama", "granite"), ("granite", "gemma3_text"), ("gemma3_text", "smollm3")])
def test_distillation_across_families_starts_from_the_stock_divergence(pair, objective, new_job):
    settings = Distill(objective=objective, **{**SETTINGS, "steps": 2, "evaluations": 1})
    student, teacher = (stock_model(name, seed, vocab_size=50) for seed, name in enumerate(pair))
    batch = collate(0)(MATERIAL.validation)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    where = batch["labels"][:, 1:] != IGNORE
    with torch.no_grad():
        log_q, log_p = (model(**given).logits[:, :-1].log_softmax(-1)[where] for model in (student, teacher))
    job = new_job("distill", settings)
    distill(job, student, teacher, settings, MATERIAL)
    first = next(record for record in job.metrics() if record["split"] == "validation")
    expected = kl_div(log_p, log_q, log_target=True, reduction="batchmean")
    if objective == "forward_kl":  # on the data's tokens: its own objective, half of it cross-entropy
        forward = kl_div(log_q, log_p, log_target=True, reduction="batchmean")
        expected = (plain_cross_entropy(log_q, batch["labels"][:, 1:][where]) + forward) / 2
    assert first["loss"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("by", ["ours", "trl"])
@pytest.mark.parametrize("name", [*CHANGED, "smollm3", "mistral", "olmo2", "phi3"])
def test_fine_tuning_takes_the_stock_loss(name, by, new_job, monkeypatch):
    tokenizer = make_tokenizer(["a small test of words"], 300)
    rows = [{"prompt": "word " * n, "completion": "answer " * (5 - n)} for n in range(1, 5)]
    model = stock_model(name, vocab_size=300, max_position_embeddings=64)
    expected = stock_loss(model, collate(0)(list(Rows(rows, tokenizer, 64))))
    if by == "trl":  # what other devices and several processes use
        monkeypatch.setattr(module, "HEADS", {})
        monkeypatch.setattr("colpipe.training.supervised.HEADS", {})
    settings = Training(steps=1, batch_size=4, max_length=64)
    job = new_job("sft", settings, micro_batch=2)
    fine_tune(job, model, tokenizer, rows, settings)
    [record] = job.metrics()
    assert record["loss"] == pytest.approx(expected, rel=1e-4)


def test_what_trls_loss_does_not_follow_is_refused(new_job):
    settings, tokenizer = Training(steps=1, batch_size=1, max_length=64), make_tokenizer(["a"], 300)
    rows = [{"prompt": "p", "completion": "c"}]
    stray = stock_model("llama", vocab_size=300)
    stray.config.logits_scaling = 4.0
    foreign = stock_model("llama", vocab_size=300)
    foreign.config.model_type, foreign.config.logits_soft_cap = "recurrent_gemma", 30.0
    for model, message in (
        (
            stray,
            r"llama: logits_scaling is 4.0, which a model_type 'llama' does not look at, but trl's loss does; take",
        ),
        (
            foreign,
            r"recurrent_gemma: logits_soft_cap is 30.0, which changes its logits, and trl's loss does not follow",
        ),
    ):
        with pytest.raises(ColpipeError, match=message):
            fine_tune(new_job("sft", settings), model, tokenizer, rows, settings)


def test_submodels_of_an_elastic_member_divide_as_it_does():
    model = stock_model("granite", tie_word_embeddings=True)
    sizes = Weights(model).sizes
    smaller = {**sizes, "layer": 2, "ffn": 16}
    submodels = Submodels(model, ElasticMember(smaller, [0, 2], 1.0), Elastic(random=1), seed=0)
    stock = cut(Weights(model), smaller, submodels.elastic).load()
    with torch.no_grad():
        found = submodels.projection(smaller)({"input_ids": IDS}, EVERYWHERE).logits(slice(None))
        expected = stock(input_ids=IDS).logits[0, :-1]
    assert stock.config.logits_scaling == 4 and expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
