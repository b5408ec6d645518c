"""Ridge regression from sums over tokens, so that memory does not grow with their number."""

import torch
from torch import Tensor

SINGULAR = 1e-12  # of the squared ratio of pivots: below it a system counts as singular


class Normal:
    """The normal equations of what is to be added to a projection: minimise |R − H Dᵀ − b|² + ridge · mean(diag HᵀH) · |D|².

    Attributes, in float64:
        gram: (inside, inside) HᵀH, of what the projection reads.
        right: (inside, hidden) HᵀR, of what is missing, R = Y − H W₀ᵀ.
        heard, missing: (inside,) and (hidden,), sums of H and R over tokens.
        error, size: |R|² and |Y|².
        count: tokens.
    """

    def __init__(self, inside: int, hidden: int):
        self.gram = torch.zeros(inside, inside, dtype=torch.float64)
        self.right = torch.zeros(inside, hidden, dtype=torch.float64)
        self.heard = torch.zeros(inside, dtype=torch.float64)
        self.missing = torch.zeros(hidden, dtype=torch.float64)
        self.error = self.size = 0.0
        self.count = 0

    def add(self, heard: Tensor, missing: Tensor, target: Tensor) -> None:
        """Some tokens more: H (tokens, inside), R and Y (tokens, hidden)."""
        self.gram += (heard.T @ heard).cpu()
        self.right += (heard.T @ missing).cpu()
        self.heard += heard.sum(0).cpu()
        self.missing += missing.sum(0).cpu()
        self.error += missing.square().sum().item()
        self.size += target.square().sum().item()
        self.count += len(heard)

    def solve(self, ridge: float, affine: bool) -> tuple[Tensor, Tensor, float]:
        """D (hidden, inside), b (hidden,), and the ridge that it took: ten times as much until the system can be solved.

        Args:
            affine: whether there is a bias. It has no ridge; its column is eliminated by taking means away.
        """
        gram, right = self.gram, self.right
        if affine:
            gram = gram - torch.outer(self.heard, self.heard) / self.count
            right = right - torch.outer(self.heard, self.missing) / self.count
        scale = self.gram.diagonal().mean()
        change = torch.zeros_like(right)
        while scale > 0:  # nothing is read: nothing can be written
            system = gram.clone()
            system.diagonal().add_(ridge * scale)
            root, failed = torch.linalg.cholesky_ex(system)
            pivots = root.diagonal()
            if not failed and pivots.min() ** 2 > SINGULAR * pivots.max() ** 2:
                change = torch.cholesky_solve(right, root)
                break
            ridge = max(10 * ridge, 1e-9)
        shift = (self.missing - self.heard @ change) / self.count if affine else torch.zeros_like(self.missing)
        return change.T, shift, ridge

    def relative_error(self, change: Tensor | None = None, shift: Tensor | None = None) -> float:
        """|R − H Dᵀ − b| / |Y|."""
        error = self.error
        if change is not None and shift is not None:
            change, shift = change.cpu().double(), shift.cpu().double()
            error -= 2 * ((change.T * self.right).sum() + shift @ self.missing).item()
            error += ((change @ self.gram * change).sum() + 2 * shift @ (change @ self.heard)).item()
            error += self.count * (shift @ shift).item()
        return (max(error, 0.0) / self.size) ** 0.5 if self.size else 0.0
