"""Distillation objectives over hidden states and output heads.

Logits of B × T × V never exist at once: rows (tokens that carry loss) are projected in chunks, and each chunk's gradient is
computed right away, inside the forward pass, which a scalar loss allows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 256  # tokens projected at a time


def reverse_kl(
    student_hidden: Tensor, student_head: Tensor, teacher_hidden: Tensor, teacher_head: Tensor, rows: int = ROWS
) -> Tensor:
    """Reverse Kullback-Leibler divergence KL(student ‖ teacher), summed over rows, in nats (Eq. 1).

    A vocabulary that is padded in one of the models is cropped to the shorter one.

    Args:
        student_hidden: (N, d_student) last hidden states of the student where there is loss.
        student_head: (V, d_student) its output embedding.
        teacher_hidden: (N, d_teacher) the teacher's, at the same positions; no gradient flows to it.
        teacher_head: (V', d_teacher) its output embedding.
        rows: rows projected at a time.

    Returns:
        Scalar; gradients flow to `student_hidden` and `student_head`.
    """
    return _ReverseKL.apply(student_hidden, student_head, teacher_hidden.detach(), teacher_head.detach(), rows)


class _ReverseKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student_hidden, student_head, teacher_hidden, teacher_head, rows):
        vocabulary = min(len(student_head), len(teacher_head))
        student_rows, teacher_rows = student_head[:vocabulary], teacher_head[:vocabulary]
        grad_hidden, grad_head = torch.zeros_like(student_hidden), torch.zeros_like(student_head)
        total = student_hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(student_hidden), rows):
            chunk = slice(start, start + rows)
            log_q = F.log_softmax(F.linear(student_hidden[chunk], student_rows).float(), dim=-1)
            log_p = F.log_softmax(F.linear(teacher_hidden[chunk], teacher_rows).float(), dim=-1)
            q, log_ratio = log_q.exp(), log_q - log_p
            divergence = (q * log_ratio).sum(dim=-1, keepdim=True)
            total += divergence.sum()
            # d KL / d logits of the student: q (log q − log p − KL); the +1 of d(q log q) cancels in the softmax
            slope = (q * (log_ratio - divergence)).to(student_hidden.dtype)
            grad_hidden[chunk] = slope @ student_rows.to(slope.dtype)
            grad_head[:vocabulary] += slope.T @ student_hidden[chunk]
        ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_head = ctx.saved_tensors
        return grad * grad_hidden, grad * grad_head, None, None, None
