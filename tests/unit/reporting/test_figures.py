"""Curves as figures show them."""

from colpipe.reporting.figures import smoothed


def test_smoothing_does_not_lag():
    falling = [float(10 - step) for step in range(10)]
    assert smoothed(falling, 3)[1:-1] == falling[1:-1]
    assert smoothed([0.0, 3.0, 0.0], 3) == [1.5, 1.0, 1.5]
