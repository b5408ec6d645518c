"""Every objective against the plain formula in float64, in value and gradient."""

import pytest
import torch

from colpipe.config.constants import logits_chunk
from colpipe.training.objectives import (
    Projection,
    TopK,
    chunked,
    cross_entropy,
    forward_kl,
    jensen_shannon,
    policy_gradient,
    reverse_kl,
    weighted,
)

N, V = 11, 23
ACTIONS = torch.arange(N) * 7 % V
ADVANTAGES = torch.linspace(-2, 2, N, dtype=torch.float64)
SAMPLED = torch.linspace(-6, -1, N, dtype=torch.float64)


def probabilities(side: Projection, row: int, vocabulary: int) -> list:
    """Softmax over the leading tokens, one number at a time."""
    logits = [
        sum(side.weight[token, i] * side.hidden[row, i] for i in range(side.hidden.shape[1]))
        + (0 if side.bias is None else side.bias[token])
        for token in range(vocabulary)
    ]
    highest = max(logit.item() for logit in logits)
    powers = [(logit - highest).exp() for logit in logits]
    return [power / sum(powers) for power in powers]


def kl(a, b):
    return sum(x * (x.log() - y.log()) for x, y in zip(a, b, strict=True))


def plain_policy(q, row):
    """One token's loss, as Appendix C.1 has it, with w = q_old / p̃ and any q_old, which cancels."""
    old = q[ACTIONS[row]].item() * 1.1
    weight = old / SAMPLED[row].exp()
    ratio = weight * q[ACTIONS[row]] / old
    clipped = min(max(ratio.item(), 0.8), 1.2)
    free, held = -ADVANTAGES[row] * ratio, -ADVANTAGES[row] * clipped
    return free if free.item() > held.item() or clipped == ratio.item() else held


PLAIN = {
    "reverse_kl": lambda q, p, row: kl(q, p),
    "forward_kl": lambda q, p, row: kl(p, q),
    "jsd": lambda q, p, row: sum(kl(x, [(a + b) / 2 for a, b in zip(q, p, strict=True)]) / 2 for x in (q, p)),
    "cross_entropy": lambda q, p, row: -q[ACTIONS[row]].log(),
    "policy_gradient": lambda q, p, row: plain_policy(q, row),
    "weighted": lambda q, p, row: 0.3 * kl(q, p) - 0.5 * q[ACTIONS[row]].log(),
}
OURS = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "jsd": jensen_shannon,
    "cross_entropy": cross_entropy(ACTIONS),
    "policy_gradient": policy_gradient(ACTIONS, ADVANTAGES, SAMPLED, 0.2),
    "weighted": weighted((0.3, reverse_kl), (0.5, cross_entropy(ACTIONS))),
}


def tensors(bias: bool, student_rows: int = V, teacher_rows: int = V):
    """Hidden states, weights and biases of student and teacher; one row's logits are far apart."""
    torch.manual_seed(0)
    shapes = [(N, 6), (student_rows, 6), (student_rows,), (N, 9), (teacher_rows, 9), (teacher_rows,)]
    values = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    values[0][3] *= 8
    return values if bias else [*values[:2], None, *values[3:5], None]


def plain(name: str, values: list) -> torch.Tensor:
    student, teacher = Projection(*values[:3]), Projection(*values[3:])
    vocabulary = min(len(student.weight), len(teacher.weight))
    return sum(
        PLAIN[name](probabilities(student, row, vocabulary), probabilities(teacher, row, vocabulary), row)
        for row in range(N)
    )


def assert_same(name: str, values: list, chunk: int, rtol: float) -> None:
    wanted = [value for value in values[:3] if value is not None]
    for value in wanted:
        value.requires_grad_()
    expected = plain(name, values)
    expected_gradients = torch.autograd.grad(3 * expected, wanted)
    found = chunked(OURS[name], Projection(*values[:3]), Projection(*values[3:]), chunk)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)
    gradients = torch.autograd.grad(3 * found, wanted)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("chunk", [1, 4 * V, 1000 * V])
def test_value_and_gradient(name, bias, chunk):
    assert_same(name, tensors(bias), chunk, 1e-10)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("vocabularies", [(V + 4, V), (V, V + 4)], ids=["student padded", "teacher padded"])
def test_padding_of_a_vocabulary_is_cropped(name, vocabularies):
    values = tensors(True, *vocabularies)
    assert_same(name, values, 4 * V, 1e-10)
    head = values[1].detach().requires_grad_()
    chunked(OURS[name], Projection(values[0].detach(), head), Projection(*values[3:])).backward()
    assert head.grad[V:].abs().sum() == 0


@pytest.mark.parametrize("name", OURS)
def test_a_head_tied_to_what_made_the_states_gets_both_gradients(name):
    values = tensors(False)
    embedding = values[1].requires_grad_()
    ids = torch.arange(N) % V
    teacher = Projection(*values[3:])
    found = chunked(OURS[name], Projection(embedding[ids], embedding), teacher)
    expected = plain(name, [embedding[ids], embedding, *values[2:]])
    torch.testing.assert_close(
        torch.autograd.grad(found, embedding)[0], torch.autograd.grad(expected, embedding)[0], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("name", OURS)
def test_single_and_half_precision(name):
    exact = plain(name, tensors(True))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        values = [value.to(dtype) for value in tensors(True)]
        values[0].requires_grad_()
        found = chunked(OURS[name], Projection(*values[:3]), Projection(*values[3:]))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)
        found.backward()
        assert values[0].grad.dtype == dtype


def buckets(q: list, p: list, ids: list[int]) -> tuple[list, list]:
    """Both distributions over the kept tokens and one bucket for the rest."""
    return tuple([x[i] for i in ids] + [sum(x[i] for i in range(V) if i not in ids)] for x in (q, p))


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl", "jsd"])
@pytest.mark.parametrize("kept", [1, 5, V - 1])
def test_a_kept_signal_is_the_divergence_of_its_tokens_and_buckets(name, kept):
    values = tensors(True)
    for hidden in (values[0], values[3]):
        hidden *= 0.3  # a tail below SMALLEST would be taken for SMALLEST
    student, teacher = Projection(*values[:3]), Projection(*values[3:])
    for value in values[:3]:
        value.requires_grad_()
    log_p = teacher.cropped(V).log_probabilities(slice(None))
    top = log_p.topk(kept)
    expected = 0
    for row in range(N):
        q, p = probabilities(student, row, V), probabilities(teacher, row, V)
        expected = expected + PLAIN[name](*buckets(q, p, top.indices[row].tolist()), row)
    expected_gradients = torch.autograd.grad(expected, values[:3])
    found = chunked(OURS[name], student, TopK(top.indices, top.values), 4 * V)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    for gradient, wanted in zip(torch.autograd.grad(found, values[:3]), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-8)


def test_it_is_zero_for_equal_models_and_positive_else():
    hidden, weight, _ = (value if value is None else value.float() for value in tensors(False)[:3])
    for objective in (reverse_kl, forward_kl, jensen_shannon):
        assert abs(chunked(objective, Projection(hidden, weight), Projection(hidden, weight)).item()) < 1e-5
        assert chunked(objective, Projection(hidden, weight), Projection(2 * hidden, weight)).item() > 0


def test_without_gradients_and_without_rows():
    values = tensors(True)
    values[0].requires_grad_()
    with torch.no_grad():
        assert not chunked(reverse_kl, Projection(*values[:3]), Projection(*values[3:])).requires_grad
    nothing = torch.zeros(0, 6, requires_grad=True)
    loss = chunked(reverse_kl, Projection(nothing, torch.randn(V, 6)), Projection(torch.zeros(0, 9), torch.randn(V, 9)))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("name", OURS)
def test_no_size_of_chunks_changes_it(name):
    """Nor the parts that a chunk is looked at in; the defaults on a CPU are what they were when its results were made."""
    values = [value.float() for value in tensors(True)]
    for value in values[:3]:
        value.requires_grad_()

    def loss_and_gradients(*sizes: int) -> list[torch.Tensor]:
        found = chunked(OURS[name], Projection(*values[:3]), Projection(*values[3:]), *sizes)
        return [found.detach(), *torch.autograd.grad(found, values[:3])]

    own = loss_and_gradients()
    assert all(map(torch.equal, own, loss_and_gradients(2**23, 2**19)))
    for sizes in ((V, V), (4 * V, V), (7 * V, 3 * V), (1000 * V, 2 * V), logits_chunk("cuda")):
        for one, other in zip(loss_and_gradients(*sizes), own, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_an_accelerator_projects_more_at_a_time(monkeypatch):
    """Tensors of the device `meta` have shapes alone, which is enough to see how many rows an objective gets."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # it does not know that device
    seen: dict[str, list[int]] = {"cpu": [], "meta": []}

    def counted(log_q, log_p, rows):
        seen[log_q.device.type].append(len(log_q))
        return log_q.sum(-1), log_q

    for device in seen:
        side = Projection(torch.zeros(160, 1, device=device), torch.zeros(2**17, 1, device=device))
        with torch.no_grad():
            chunked(counted, side, side)
    assert seen == {"cpu": [4] * 40, "meta": [128, 32]}
    assert logits_chunk("npu") == logits_chunk("cuda")
