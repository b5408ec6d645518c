"""Curves as figures show them."""

from colpipe.reporting.figures import loss_against_tokens, loss_curve, smoothed


def test_smoothing_does_not_lag():
    falling = [float(10 - step) for step in range(10)]
    assert smoothed(falling, 3)[1:-1] == falling[1:-1]
    assert smoothed([0.0, 3.0, 0.0], 3) == [1.5, 1.0, 1.5]


def test_a_curve_is_the_validation_losses(results):
    _, folder = results
    curve = loss_curve(folder / "desnets/llama/upper/nested/512")
    assert curve == [(0, 6.0), (512, 5.5)]
    assert loss_curve(folder / "nowhere") == []
    assert "rand" in loss_against_tokens({"upper": {"rand": curve}})
