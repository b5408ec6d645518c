"""The chunked reverse KL against the plain formula in float64, in value and gradient."""

import pytest
import torch

from colpipe.training.objectives import reverse_kl


def plain(student_hidden, student_head, teacher_hidden, teacher_head):
    """Σ_rows Σ_v q(v) [log q(v) − log p(v)], one row and one token at a time."""
    vocabulary = min(len(student_head), len(teacher_head))
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(student_hidden)):
        q = torch.softmax(student_head[:vocabulary] @ student_hidden[row], 0)
        p = torch.softmax(teacher_head[:vocabulary] @ teacher_hidden[row], 0)
        for token in range(vocabulary):
            total = total + q[token] * (q[token].log() - p[token].log())
    return total


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    shapes = [(11, 6), (23, 6), (11, 9), (27, 9)]  # the teacher's vocabulary is padded
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("rows", [1, 4, 11, 256])
def test_value_and_gradient(tensors, rows):
    student_hidden, student_head, _, _ = tensors
    student_hidden.requires_grad_()
    student_head.requires_grad_()
    expected = plain(*tensors)
    expected_grads = torch.autograd.grad(3 * expected, [student_hidden, student_head])
    single = [tensor.detach().float() for tensor in tensors]
    single[0].requires_grad_()
    single[1].requires_grad_()
    found = reverse_kl(*single, rows=rows)
    grads = torch.autograd.grad(3 * found, single[:2])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    for grad, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad.double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_padding_of_a_longer_student_vocabulary_gets_no_gradient(tensors):
    student_hidden, _, teacher_hidden, teacher_head = (tensor.float() for tensor in tensors)
    head = torch.randn(30, 6, requires_grad=True)
    reverse_kl(student_hidden, head, teacher_hidden, teacher_head).backward()
    assert head.grad[27:].abs().max() == 0 < head.grad[:27].abs().max()


def test_it_is_zero_for_equal_models_and_positive_else(tensors):
    hidden, head = tensors[0].float(), tensors[1].float()
    assert abs(reverse_kl(hidden, head, hidden, head).item()) < 1e-5
    assert reverse_kl(hidden, head, 2 * hidden, head).item() > 0


def test_no_rows_no_loss():
    nothing = torch.zeros(0, 6, requires_grad=True)
    loss = reverse_kl(nothing, torch.randn(23, 6), torch.zeros(0, 9), torch.randn(23, 9))
    loss.backward()
    assert loss.item() == 0
