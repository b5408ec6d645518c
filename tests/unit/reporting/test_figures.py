"""Figures are SVG text that is equal for equal numbers, with what it shows named in it."""

from colpipe.reporting.figures import bars, loss_against_tokens, loss_curve, raw_and_smoothed, smoothed


def test_smoothing_does_not_lag():
    falling = [float(10 - step) for step in range(10)]
    assert smoothed(falling, 3)[1:-1] == falling[1:-1]
    assert smoothed([0.0, 3.0, 0.0], 3) == [1.5, 1.0, 1.5]


def test_equal_figures_are_equal_text():
    def draw():
        curve = ([1, 2, 3], [3.0, 1.0, 2.0], [2.0, 2.0, 1.5])
        return raw_and_smoothed({"medium": {"direct": curve, "stepwise": curve}})

    assert draw() == draw()
    assert draw().startswith("<svg") and "Date" not in draw()


def test_bars_of_every_panel_and_way():
    text = bars({"dolly": {"linit": 22.1, "seqkd": 20.0}, "boolq": {"linit": 74.0}})
    assert text.startswith("<svg")
    assert bars({"dolly": {"linit": 22.1}}) != bars({"dolly": {"linit": 22.2}})


def test_a_curve_is_the_validation_losses(results):
    _, folder = results
    curve = loss_curve(folder / "desnets/llama/upper/nested/512")
    assert curve == [(0, 6.0), (512, 5.5)]
    assert loss_curve(folder / "nowhere") == []
    assert "rand" in loss_against_tokens({"upper": {"rand": curve}})
