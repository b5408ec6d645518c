"""Ridge regression from sums over tokens, so that memory does not grow with their number."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from colpipe.learngene.stored import is_finite

BLOCK = 192  # columns of H at a time, so that only the upper triangle of HᵀH is computed, and a little beside it
SINGULAR = 1e-12  # of the squared ratio of pivots: below it a system counts as singular


def add_upper(upper: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the upper triangle of leftᵀ right, both (tokens, inside), which is symmetric, to what is on the CPU."""
    for start in range(0, len(upper), BLOCK):
        upper[start : start + BLOCK, start:] += (left[:, start : start + BLOCK].T @ right[:, start:]).cpu()


def symmetric(upper: Tensor) -> Tensor:
    """The symmetric matrix of an upper triangle; what is below it does not count."""
    return upper.triu() + upper.triu(1).T


class Normal:
    """The normal equations of what is to be added to a projection: minimise |R − H Dᵀ − b|² + ridge · mean(diag HᵀH) · |D|².

    Tokens are weighted: every sum over them, those of |…|² and HᵀH too, has a factor for each.

    Attributes, in float64:
        upper: (inside, inside) upper triangle of HᵀH, of what the projection reads.
        right: (inside, hidden) HᵀR, of what is missing, R = Y − H W₀ᵀ.
        heard, missing: (inside,) and (hidden,), sums of H and R over tokens.
        error, size: |R|² and |Y|².
        weight: of all tokens.
    """

    def __init__(self, inside: int, hidden: int):
        self.upper = torch.zeros(inside, inside, dtype=torch.float64)
        self.right = torch.zeros(hidden, inside, dtype=torch.float64).T  # by columns, as LAPACK wants it
        self.heard = torch.zeros(inside, dtype=torch.float64)
        self.missing = torch.zeros(hidden, dtype=torch.float64)
        self.error = self.size = 0.0
        self.weight = 0.0

    def add(self, heard: Tensor, missing: Tensor, target: Tensor, weight: Tensor) -> None:
        """Some tokens more: H (tokens, inside), R and Y (tokens, hidden), and their weights (tokens,)."""
        weighted = heard * weight[:, None]
        add_upper(self.upper, weighted, heard)
        self.right.T.add_((missing.T @ weighted).cpu())
        self.heard += weighted.sum(0).cpu()
        self.missing += (weight @ missing).cpu()
        self.error += (weight @ missing.square()).sum().item()
        self.size += (weight @ target.square()).sum().item()
        self.weight += weight.sum().item()

    def is_finite(self) -> bool:
        """Whether all sums are; those of large values overflow."""
        sums = (self.upper, self.right, self.heard, self.missing)
        return all(map(is_finite, sums)) and math.isfinite(self.error + self.size + self.weight)

    def solve(self, ridge: float, affine: bool) -> "Solution":
        """What minimises it, of sums that are finite; with ten times the ridge until the system can be solved.

        Args:
            affine: whether there is a bias b. It has no ridge; its column is eliminated by taking means away.
        """
        gram, right, error = self.upper, self.right, self.error
        scale = gram.diagonal().mean()
        if affine:
            gram = gram - torch.outer(self.heard, self.heard) / self.weight
            right = (right.T - torch.outer(self.missing, self.heard) / self.weight).T
            error -= (self.missing @ self.missing).item() / self.weight
        change = torch.zeros_like(right)
        while scale > 0 and ridge * scale < math.inf:  # where nothing is read, or held so fast, nothing can be changed
            system = gram.clone()
            system.diagonal().add_(ridge * scale)
            root, failed = torch.linalg.cholesky_ex(system.T)  # reads the lower triangle, by columns: copied as it is
            pivots = root.diagonal()
            if not failed and pivots.min() ** 2 > SINGULAR * pivots.max() ** 2:
                change = torch.cholesky_solve(right, root)
                error -= ((change * right).sum() + ridge * scale * change.square().sum()).item()
                break
            ridge = max(10 * ridge, 1e-9)
        shift = (self.missing - self.heard @ change) / self.weight if affine else torch.zeros_like(self.missing)
        before, after = ((max(left, 0.0) / self.size) ** 0.5 if self.size else 0.0 for left in (self.error, error))
        return Solution(change.T, shift, ridge, before, after)


@dataclass(frozen=True)
class Solution:
    """Attributes:
    change, shift: D (hidden, inside) and b (hidden,), in float64.
    ridge: that it took.
    before, after: relative errors |R| / |Y| and |R − H Dᵀ − b| / |Y|.
    """

    change: Tensor
    shift: Tensor
    ridge: float
    before: float
    after: float
