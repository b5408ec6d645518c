"""The loss of completions is that of trl's fused head, which scores every position: to the bit where it was measured (MKL
with AVX-512), and on any processor but for rounding."""

import pytest
import torch
from torch.nn import Linear
from trl.kernels import ChunkedLogProbFunction

from colpipe.data.tokens import IGNORE
from colpipe.hf.logits import PLAIN, LogitTransform
from colpipe.training import completion_loss as module
from colpipe.training.completion_loss import COLUMNS, completion_loss


def batch(rows: int, length: int, answer: int, vocabulary: int, hidden: int):
    """Hidden states, labels with up to `answer` tokens of loss a row, and where they are."""
    chance = torch.Generator().manual_seed(rows * length + answer)
    labels = torch.full((rows, length), IGNORE)
    for row in labels:
        count = int(torch.randint(1, answer + 1, (1,), generator=chance))
        end = int(torch.randint(count, length + 1, (1,), generator=chance))
        row[end - count : end] = torch.randint(0, vocabulary, (count,), generator=chance)
    return torch.randn(rows, length, hidden, generator=chance), labels, labels != IGNORE


def by_trl(hidden, head, labels, predicts, tokens, transform):
    found = ChunkedLogProbFunction.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        head.weight,
        head.bias,
        labels.clamp(min=0).flatten(),
        1.0,
        COLUMNS,
        transform.cap,
        1 / transform.divisor,
        ("entropy", "is_top1"),
    )
    return -found[0].view(predicts.shape).masked_fill(~predicts, 0).sum() / tokens


@pytest.mark.parametrize(
    "transform",
    [PLAIN, LogitTransform(4.0), LogitTransform(3.0, 2.0), LogitTransform(cap=1.0)],
    ids=["plain", "scaled", "both", "capped"],
)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("rows", "length", "answer", "vocabulary", "hidden"),
    [
        (16, 80, 10, 1000, 48),
        (1, 40, 1, 300, 20),  # fewer rows of a product than MKL treats alike
        (3, 30, 30, 257, 8),
        (2, 40, 4, COLUMNS + 500, 16),  # projected in two parts
        (70, 64, 9, 300, 16),  # more tokens than trl takes at a time
    ],
)
def test_loss_and_gradients_are_trls(rows, length, answer, vocabulary, hidden, bias, transform, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2**14)  # the gradient of the weight in several parts
    states, labels, predicts = batch(rows, length, answer, vocabulary, hidden)
    found = []
    for loss_of in (by_trl, completion_loss):
        torch.manual_seed(0)
        head, own = Linear(hidden, vocabulary, bias=bias), states.clone().requires_grad_()
        loss = loss_of(own, head, labels, predicts, predicts.sum(), transform)
        loss.backward()
        found.append([loss.detach(), own.grad, *(value.grad for value in head.parameters())])
    for theirs, ours in zip(*found, strict=True):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_batch_without_loss_has_a_loss_and_gradients_of_zero():
    states, labels, predicts = batch(2, 6, 2, 30, 8)
    head, states = Linear(8, 30, bias=False), states.requires_grad_()
    loss = completion_loss(states, head, labels, torch.zeros_like(predicts), torch.tensor(0))
    loss.backward()
    assert loss == 0 and not states.grad.any() and not head.weight.grad.any()
