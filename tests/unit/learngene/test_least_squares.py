"""What sums hold, and what is solved from them, at the edges; values are tested where a cut is fitted (test_fit.py)."""

import pytest
import torch

from colpipe.learngene.least_squares import Normal


def summed(factor: float = 1.0) -> Normal:
    heard, missing = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1)) * factor
    normal = Normal(4, 4)
    normal.add(heard, missing, missing, torch.ones(9))
    return normal


@pytest.mark.parametrize(("factor", "finite"), [(1, True), (1e15, True), (1e20, False), (float("nan"), False)])
def test_sums_say_whether_they_are_finite(factor, finite):
    assert summed(factor).is_finite() == finite


@pytest.mark.parametrize("ridge", [1e300, 1e308, float("inf")])
def test_a_ridge_that_holds_everything_fast_ends_and_changes_nothing(ridge):
    normal = summed(1e10)
    solution = normal.solve(ridge, affine=False)
    torch.testing.assert_close(solution.change, torch.zeros_like(solution.change))
    assert solution.before == solution.after == 1
