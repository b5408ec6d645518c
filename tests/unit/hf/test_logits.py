"""Hidden states, head and transform give the logits of the stock forward, for every type that is said to be known."""

import pytest
import torch

from colpipe.architectures.families import FAMILIES
from colpipe.errors import ColpipeError
from colpipe.hf.logits import HEADS, PLAIN, LogitTransform, require_transform, transform_of
from tests.unit.hf.stock import CHANGED, MODELS, stock_model

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7, 1, 8, 2, 8, 1, 8, 2]])


def test_every_family_is_known_and_every_known_type_is_compared():
    assert set(FAMILIES) <= set(HEADS)
    assert set(HEADS) == {name.partition(" ")[0] for name in MODELS}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_are_those_of_the_stock_forward_to_the_bit(name, dtype):
    model = stock_model(name).to(dtype)
    head, transform = model.get_output_embeddings(), transform_of(model)
    assert getattr(head, "bias", None) is None  # perplexity takes the weight alone
    values = head(model.base_model(input_ids=IDS, use_cache=False).last_hidden_state)
    found = transform.apply(values.clone())
    assert torch.equal(found, model(input_ids=IDS).logits)
    assert (transform != PLAIN) == (name in CHANGED)
    if name in CHANGED:
        assert (values.log_softmax(-1) - found.log_softmax(-1)).abs().max() > 1  # without it, losses would be others


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_last_hidden_states_that_a_model_returns_are_what_its_head_reads(name):
    model = stock_model(name)
    found = model(input_ids=IDS, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
    assert torch.equal(found, model.base_model(input_ids=IDS).last_hidden_state)


@pytest.mark.parametrize("transform", [LogitTransform(6.0), LogitTransform(1.0, 5.0), LogitTransform(4.0, 30.0)])
def test_the_derivative_is_autograds(transform):
    values = torch.linspace(-40, 40, 33, dtype=torch.float64).requires_grad_()
    logits = values / transform.divisor
    if transform.cap:
        logits = transform.cap * torch.tanh(logits / transform.cap)
    logits.sum().backward()
    with torch.no_grad():
        found = transform.apply(values.clone())
    torch.testing.assert_close(found, logits.detach(), rtol=1e-14, atol=0)
    derivative = torch.as_tensor(transform.derivative(found), dtype=torch.float64)
    torch.testing.assert_close(derivative.expand(33), values.grad, rtol=1e-9, atol=1e-14)


def test_a_cap_that_half_precision_rounds_up_has_no_negative_slope():
    transform = LogitTransform(cap=33.3)  # bfloat16 has no such number
    logits = transform.apply(torch.tensor([1e4, -1e4, 0], dtype=torch.bfloat16))
    derivative = transform.derivative(logits)
    assert derivative.dtype == torch.float32 and derivative.min() >= 0 and derivative[2] == 1


def test_what_cannot_be_is_refused():
    model = stock_model("granite", logits_scaling=0.0)
    with pytest.raises(ColpipeError, match=r"granite: logits_scaling is 0.0; it has to be above 0"):
        transform_of(model)
    model = stock_model("gemma2", final_logit_softcapping=-1.0)
    with pytest.raises(ColpipeError, match=r"gemma2: final_logit_softcapping is -1.0; it has to be above 0"):
        transform_of(model)
    model = stock_model("llama")
    model.config.model_type = "cohere"
    assert transform_of(model) is None
    with pytest.raises(
        ColpipeError, match=r"model_type 'cohere': how its logits are made of hidden states is not known"
    ):
        require_transform(model)
