"""Distillation objectives over hidden states and output heads.

Logits of B × T × V never exist at once, forward or backward: rows (tokens that carry loss) are projected a few at a time,
and each chunk's gradient is computed right away, inside the forward pass, which a scalar loss allows.

An objective looks at one chunk: from the log-probabilities of student (q) and teacher (p), (n, V), and the rows that they
are, it gives each row's loss, (n,), and its slope, the derivative by the student's logits, (n, V).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from colpipe.architectures.flops import TRAINING
from colpipe.config.constants import LogitsChunk, logits_chunk
from colpipe.config.stages import Distill
from colpipe.hf.counting import count_logits
from colpipe.hf.logits import PLAIN, LogitTransform

SMALLEST = math.log(1e-8)  # of the teacher's tail: where it rounds to 0, a student's tail would cost infinitely much

Objective = Callable[[Tensor, Tensor | None, slice], tuple[Tensor, Tensor]]


class Projection(NamedTuple):
    """Last hidden states where there is loss, and the output head that makes logits of them."""

    hidden: Tensor
    """(N, hidden)"""
    weight: Tensor
    """(V, hidden)"""
    bias: Tensor | None = None
    """(V,)"""
    transform: LogitTransform = PLAIN
    """from what the head gives to logits"""

    def cropped(self, vocabulary: int) -> "Projection":
        """To the leading entries, which leaves out the padding of a longer vocabulary. Under autocast, the head is in its
        precision: it would be converted for each chunk anew, which took a sixth of the loss's time."""
        weight, device = self.weight[:vocabulary], self.hidden.device.type
        if torch.is_autocast_enabled(device) and weight.dtype == torch.float32:
            weight = weight.to(torch.get_autocast_dtype(device))
        bias = None if self.bias is None else self.bias[:vocabulary]
        return self._replace(weight=weight, bias=bias)

    def logits(self, rows: slice) -> Tensor:
        """(n, V)"""
        count_logits(len(self.hidden[rows]), *self.weight.shape)
        return self.transform.apply(F.linear(self.hidden[rows], self.weight, self.bias))

    def log_probabilities(self, rows: slice) -> Tensor:
        """(n, V), at least in float32."""
        return _log_softmax(self.logits(rows))


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


class TopK(NamedTuple):
    """A teacher's cached top-k log-probabilities; the rest of its mass is one bucket."""

    ids: Tensor
    """(N, k)"""
    log_probabilities: Tensor
    """(N, k)"""

    def spread(self, rows: slice, log_q: Tensor) -> Tensor:
        """(n, V): the bucket's mass is spread as the student spreads its own over the same tokens.

        Every divergence, and its slope, is then that of the k tokens and the two buckets.
        """
        ids, kept = self.ids[rows], self.log_probabilities[rows].to(log_q.dtype)
        tail = torch.log1p(-kept.exp().sum(-1, keepdim=True).clamp(max=1)).clamp(min=SMALLEST)
        own = torch.log1p(-log_q.gather(-1, ids).exp().sum(-1, keepdim=True).clamp(max=1)).clamp(min=SMALLEST)
        return (log_q + (tail - own)).scatter_(-1, ids, kept)


def chunked(
    objective: Objective,
    student: Projection,
    teacher: Projection | TopK | None,
    chunk: int | None = None,
    part: int | None = None,
) -> Tensor:
    """Loss summed over rows, in nats.

    A vocabulary that is padded in one of the models is cropped to the shorter one.

    Args:
        teacher: at the same positions; no gradient flows to it. None where the objective needs none.
        chunk: logits projected at a time; None: as many as suit the device.
        part: logits of a chunk that the objective looks at together; None likewise.

    Returns:
        Scalar; gradients flow to the student's hidden states, weight and bias.
    """
    own = logits_chunk(student.hidden.device.type)
    sizes = LogitsChunk(chunk or own.projected, part or own.together)
    return _Chunked.apply(*student, teacher, objective, sizes, torch.is_grad_enabled())


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, transform, teacher, objective, sizes, wants_gradient):
        own, vocabulary = Projection(hidden, weight, bias, transform), len(weight)
        if isinstance(teacher, Projection):
            vocabulary = min(vocabulary, len(teacher.weight))
            teacher = teacher.cropped(vocabulary)
        student = own.cropped(vocabulary)
        learns = [value for value in (hidden, weight, bias) if value is not None]
        grads = [torch.zeros_like(value) for value in learns] if wants_gradient else []
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        step, few = (max(1, count // vocabulary) for count in (sizes.projected, min(sizes)))
        for start in range(0, len(hidden), step):
            rows = slice(start, start + step)
            logits = student.logits(rows)
            teacher_logits = teacher.logits(rows) if isinstance(teacher, Projection) else None
            for first in range(0, len(logits), few):
                part, at = slice(first, first + few), slice(start + first, min(start + first + few, start + step))
                log_q, log_p = _log_softmax(logits[part]), None
                if isinstance(teacher, TopK):
                    log_p = teacher.spread(at, log_q)
                elif teacher_logits is not None:
                    log_p = _log_softmax(teacher_logits[part])
                losses, slopes = objective(log_q, log_p, at)
                if transform != PLAIN:
                    slopes *= transform.derivative(logits[part])
                logits[part] = slopes  # by what the head gives, in the place of the logits
                total += losses.sum()
            if wants_gradient:
                slope = logits.to(hidden.dtype)
                count_logits(len(slope), vocabulary, weight.shape[1], TRAINING - 1)
                grads[0][rows] = slope @ student.weight
                if slope.dtype == weight.dtype:
                    grads[1][:vocabulary].addmm_(slope.T, hidden[rows])  # no second (V, hidden) beside the gradient
                else:
                    grads[1][:vocabulary] += slope.T @ hidden[rows]
                if bias is not None:
                    grads[2][:vocabulary] += slope.sum(0)
            del logits, teacher_logits  # before the next chunk's are made
        ctx.gradients = grads  # not saved for backward: scaled in place there, or the head's would be there twice
        return total

    @staticmethod
    def backward(ctx, grad):
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were used already; compute it again")
        scaled = [value.mul_(grad) for value in gradients]
        return *scaled, *[None] * (len(ctx.needs_input_grad) - len(scaled))


def reverse_kl(log_q: Tensor, log_p: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """KL(q ‖ p), Eq. 1."""
    q, ratio = log_q.exp(), log_q - log_p
    loss = torch.linalg.vecdot(q, ratio)
    return loss, ratio.sub_(loss[:, None]).mul_(q)  # the +1 of d(q log q) cancels in the softmax


def forward_kl(log_q: Tensor, log_p: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q)."""
    p = log_p.exp()
    return torch.linalg.vecdot(p, log_p - log_q), log_q.exp().sub_(p)


def jensen_shannon(log_q: Tensor, log_p: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q)."""
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    q, by_q = log_q.exp(), (log_q - log_m).div_(2)
    own = torch.linalg.vecdot(q, by_q)
    loss = own + torch.linalg.vecdot(log_p.exp(), log_p - log_m) / 2
    return loss, by_q.sub_(own[:, None]).mul_(q)


def cross_entropy(labels: Tensor) -> Objective:
    """−log q of the labels, (N,) token ids."""

    def objective(log_q: Tensor, log_p: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        wanted = labels[rows, None]
        loss = -log_q.gather(-1, wanted)[:, 0]
        slope = log_q.exp()
        return loss, slope.scatter_add_(-1, wanted, slope.new_full(wanted.shape, -1.0))

    return objective


def policy_gradient(actions: Tensor, advantages: Tensor, log_sampled: Tensor, clip: float) -> Objective:
    """max(−A ρ, −A clip(ρ, 1 ± clip)): the clipped policy gradient of Appendix C.1, for sampled tokens.

    ρ = w · q / q_old with w = q_old / p̃, where p̃ is the mixture that the token was sampled from: ρ = q / p̃.

    Args:
        actions: (N,) sampled token ids.
        advantages: (N,) A.
        log_sampled: (N,) log p̃ of the tokens.
    """

    def objective(log_q: Tensor, log_p: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        action, advantage = actions[rows, None], advantages[rows].to(log_q.dtype)
        ratio = (log_q.gather(-1, action)[:, 0] - log_sampled[rows].to(log_q.dtype)).exp()
        free, held = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
        pull = torch.where(free >= held, free, 0.0)[
            :, None
        ]  # d ρ / d logits = ρ (onehot − q); none where it is clipped
        slope = (log_q.exp() * -pull).scatter_add_(-1, action, pull)
        return torch.maximum(free, held), slope

    return objective


def weighted(*terms: tuple[float, Objective]) -> Objective:
    """A weighted sum of objectives."""

    def objective(log_q: Tensor, log_p: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        (weight, first), *others = terms
        loss, slope = (value.mul_(weight) for value in first(log_q, log_p, rows))
        for weight, term in others:
            more_loss, more_slope = term(log_q, log_p, rows)
            loss, slope = loss.add_(more_loss, alpha=weight), slope.add_(more_slope, alpha=weight)
        return loss, slope

    return objective


def objective_by_name(settings: Distill, submodel: bool = False) -> Callable[[Tensor, dict], Objective]:
    """`stages.distill.objective` as a function that makes a batch's objective, from its labels and its other columns.

    Args:
        submodel: for a submodel of an elastic member. It has no policy of its own that was sampled from: `minillm` leaves
            it the exact divergence.
    """
    match settings.objective:
        case "reverse_kl" | "on_policy":
            return lambda labels, columns: reverse_kl
        case "minillm" if submodel:
            return lambda labels, columns: reverse_kl
        case "forward_kl":
            return lambda labels, columns: weighted((0.5, cross_entropy(labels)), (0.5, forward_kl))
        case "jsd":
            return lambda labels, columns: jensen_shannon
        case "seqkd":
            return lambda labels, columns: cross_entropy(labels)
    clip = settings.rollout.clip

    def minillm(labels: Tensor, columns: dict) -> Objective:
        policy = policy_gradient(labels, columns["advantages"], columns["sampled"], clip)
        return weighted((1.0, policy), (1.0, reverse_kl))

    return minillm
