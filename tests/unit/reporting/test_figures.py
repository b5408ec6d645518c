"""Curves as figures show them."""

from colpipe.reporting import figures
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


def test_a_uniform_guess_is_said_once_and_changes_no_axis(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "as_svg", seen.append)
    for vocabulary in (None, 200, 50257):  # ln 200 = 5.3
        figures.loss_against_tokens({"upper": {"rand": [(0, 6.0), (512, 5.0)]}}, vocabulary=vocabulary)
    plain, near, far = ([len(figure.axes[0].lines), figure.axes[0].get_ylim()] for figure in seen)
    assert (near[0], far) == (2, plain) and near[1] == plain[1]
    assert [figure.get_supxlabel() for figure in seen[1:]] == [
        "a uniform guess has 5.30 (ln 200)",
        "a uniform guess has 10.82 (ln 50,257)",
    ]
