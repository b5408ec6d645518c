"""Every objective and its gradients at GPT-2's vocabulary, against plain formulas over whole logits in float64 on the CPU.

Inputs are rounded to the precision first, so that what differs is arithmetic. Beside ours, the plain formulas on the device.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

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
from tests.gpu.finding import Finding, within
from tests.gpu.tiny import World, relative

STUDENT, TEACHER, CLIP, KEPT = 64, 96, 0.2, 20
SPREAD = 3.0  # deviation of the logits: a few tokens have most of the probability, as in models that were trained
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum()


def jsd(log_q: Tensor, log_p: Tensor) -> Tensor:
    middle = ((log_q.exp() + log_p.exp()) / 2).log()
    return (kl(log_q, middle) + kl(log_p, middle)) / 2


def policy(log_q: Tensor, data: dict) -> Tensor:
    """Appendix C.1 for sampled tokens."""
    ratio = (log_q.gather(-1, data["labels"][:, None])[:, 0] - data["sampled"]).exp()
    advantage = data["advantages"]
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - CLIP, 1 + CLIP)).sum()


def label_loss(log_q: Tensor, data: dict) -> Tensor:
    return F.nll_loss(log_q, data["labels"], reduction="sum")


def bucketed(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL over the teacher's most probable tokens and one bucket for the rest."""
    ids = log_p.topk(KEPT).indices
    sides = []
    for value in (log_p, log_q):
        kept = value.gather(-1, ids)
        sides.append(torch.cat([kept, (1 - kept.exp().sum(-1, keepdim=True)).log()], -1))
    return kl(*sides)


PLAIN: dict[str, Callable[[Tensor, Tensor, dict], Tensor]] = {
    "reverse_kl": lambda q, p, data: kl(q, p),
    "forward_kl": lambda q, p, data: (label_loss(q, data) + kl(p, q)) / 2,
    "jsd": lambda q, p, data: jsd(q, p),
    "seqkd": lambda q, p, data: label_loss(q, data),
    "minillm": lambda q, p, data: policy(q, data) + kl(q, p),
    "forward_kl, cached": lambda q, p, data: bucketed(q, p),
}
OURS = {
    "reverse_kl": lambda data: reverse_kl,
    "forward_kl": lambda data: weighted((0.5, cross_entropy(data["labels"])), (0.5, forward_kl)),
    "jsd": lambda data: jensen_shannon,
    "seqkd": lambda data: cross_entropy(data["labels"]),
    "minillm": lambda data: weighted(
        (1.0, policy_gradient(data["labels"], data["advantages"], data["sampled"], CLIP)), (1.0, reverse_kl)
    ),
    "forward_kl, cached": lambda data: forward_kl,
}


def check(world: World) -> Iterator[Finding]:
    rows, vocabulary = (96, 50257) if world.has_accelerator else (24, 4096)
    for dtype in (torch.float32, torch.bfloat16):
        data = _data(rows, vocabulary, dtype)
        exact = {name: _values(plain_loss(name), data, torch.float64) for name in PLAIN}
        on_device = {name: value.to(world.device) for name, value in data.items()}
        for name in PLAIN:
            errors = {}
            for label, loss in {
                "whole": our_loss(name, None),
                "chunked": our_loss(name, 5 * vocabulary),
                "naive": plain_loss(name),
            }.items():
                found = _values(loss, on_device, dtype)
                pairs = zip(found, exact[name], strict=True)
                errors[label] = max(relative(value, reference) for value, reference in pairs)
            naive = errors.pop("naive")
            precision = str(dtype).removeprefix("torch.")
            yield within(f"{name}, {precision}", errors, LIMITS[dtype], f"loss and gradients, naive {naive:.1e}; ")


def _data(rows: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Hidden states and heads, rounded to a precision."""
    torch.manual_seed(0)
    counts = {
        "student": (rows, STUDENT),
        "head": (vocabulary, STUDENT),
        "teacher": (rows, TEACHER),
        "own": (vocabulary, TEACHER),
    }
    scaled = {name: torch.randn(shape) * math.sqrt(SPREAD) / shape[1] ** 0.25 for name, shape in counts.items()}
    return {
        **{name: value.to(dtype) for name, value in scaled.items()},
        "labels": torch.randint(vocabulary, (rows,)),
        "advantages": torch.linspace(-2, 2, rows),
        "sampled": torch.linspace(-14, -6, rows),
    }


def plain_loss(name: str) -> Callable[[dict], Tensor]:
    def loss(data: dict) -> Tensor:
        log_q, log_p = (
            F.log_softmax(F.linear(*pair).to(torch.promote_types(pair[0].dtype, torch.float32)), -1)
            for pair in ((data["student"], data["head"]), (data["teacher"], data["own"]))
        )
        return PLAIN[name](log_q, log_p, data)

    return loss


def our_loss(name: str, chunk: int | None) -> Callable[[dict], Tensor]:
    def loss(data: dict) -> Tensor:
        teacher: Projection | TopK = Projection(data["teacher"], data["own"])
        if name.endswith("cached"):
            top = teacher.log_probabilities(slice(None)).topk(KEPT)
            teacher = TopK(top.indices, top.values)
        return chunked(OURS[name](data), Projection(data["student"], data["head"]), teacher, chunk)

    return loss


def _values(loss: Callable[[dict], Tensor], data: dict, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The loss, and its gradients by the student's states and head."""
    data = {name: value.to(dtype) if value.ndim > 1 else value for name, value in data.items()}
    if dtype == torch.float64:
        data |= {name: data[name].double() for name in ("advantages", "sampled")}
    learnt = [data[name].detach().requires_grad_() for name in ("student", "head")]
    data |= dict(zip(("student", "head"), learnt, strict=True))
    value = loss(data)
    return value.detach(), *torch.autograd.grad(value, learnt)
