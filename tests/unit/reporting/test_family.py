"""The first figure: what is drawn is read back from the SVG, and stands where its numbers say."""

import io
import math
import re
import xml.etree.ElementTree as xml

import pandas as pd
import pytest

from colpipe.reporting.family_chart import as_file, family
from colpipe.reporting.summary import COLUMNS

SVG = "{http://www.w3.org/2000/svg}"


def row(desnet, params, init, tokens, value, task="wiki", metric="loss", ancestor="a", low=None, high=None) -> dict:
    names = {"ancestor": ancestor, "desnet": desnet, "params": params, "init": init, "tokens": tokens}
    return {**names, "task": task, "metric": metric, "value": value, "low": low, "high": high, "seed": 0}


LOSSES = [
    row("big", 130_000_000, "as it is", None, 3.0, ancestor=""),
    row("large", 110_000_000, "distilled", None, 3.2),
    row("small", 50_000_000, "distilled", None, 3.7),
    row("60M", 60_000_000, "fit", 0, 3.9, low=3.8, high=4.0),
    row("90M", 90_000_000, "fit", 0, 3.5),
    row("90M", 90_000_000, "fit", 200_000, 3.3),
    row("60M", 60_000_000, "fit", 200_000, 3.6),
    row("60M", 60_000_000, "nested", 0, 4.2),
    row("90M", 90_000_000, "nested", 0, 3.8),
    row("60M", 60_000_000, "rand", 0, 10.75, ancestor=""),
    row("90M", 90_000_000, "rand", 0, 10.25, ancestor=""),
    row(None, None, "uniform", None, 10.8, ancestor=None),
]


def frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def drawn(rows: list[dict], dark: bool = False) -> list[xml.Element]:
    """The panels of the figure."""
    return list(xml.fromstring(as_file(family(frame(rows)), dark)).findall(f"{SVG}g"))


def texts(panel: xml.Element, kind: str | None = None) -> list[str]:
    return [each.text for each in panel.iter(f"{SVG}text") if kind in (None, each.get("class"))]


def axis(panel: xml.Element, upright: bool):
    """Value → place, by what stands at two ticks of an axis; their texts are all that is known of it."""
    unit = {"k": 1e3, "M": 1e6, "B": 1e9}
    ticks = {}
    for each in panel.iter(f"{SVG}text"):
        if each.get("class") == "tick" and each.get("text-anchor") == ("end" if upright else "middle"):
            found = re.fullmatch(r"([\d.]+)([kMB]?)", each.text)
            if found and bool(found[2]) != upright:
                shift = -4 if upright else 0
                ticks[float(found[1]) * unit.get(found[2], 1)] = float(each.get("y" if upright else "x")) + shift
    (a, at_a), *_, (b, at_b) = sorted(ticks.items())
    return lambda value: at_a + (value - a) / (b - a) * (at_b - at_a)


def lines(panel: xml.Element) -> list[tuple[str, list[tuple[float, float]], str]]:
    """(colour, points, dashes) of each method."""
    found = [each.find(f"{SVG}polyline") for each in panel.iter(f"{SVG}g") if each.get("class") == "line"]
    return [
        (
            each.get("stroke"),
            [tuple(map(float, pair.split(","))) for pair in each.get("points").split()],
            each.get("stroke-dasharray"),
        )
        for each in found
    ]


def test_every_method_is_a_line_by_size_with_its_name_beside_it():
    [panel] = drawn(LOSSES)
    x, y = axis(panel, False), axis(panel, True)
    expected = [
        [(60e6, 3.9), (90e6, 3.5)],  # fit, 0 tokens
        [(60e6, 3.6), (90e6, 3.3)],  # fit, 200k tokens: sorted by size
        [(60e6, 4.2), (90e6, 3.8)],  # nested, 0 tokens
    ]
    found = lines(panel)
    for (_, points, _), values in zip(found, expected, strict=True):
        for place, (params, loss) in zip(points, values, strict=True):
            assert place == pytest.approx((x(params), y(loss)), abs=0.2)
    colours, dashes = [colour for colour, _, _ in found], [dash for _, _, dash in found]
    assert colours[0] == colours[1] != colours[2] and dashes[0] == dashes[2] != dashes[1] is None
    labels = [each for each in panel.iter(f"{SVG}text") if each.get("class") == "label"]
    assert [each.text for each in labels] == ["fit, 0 tokens", "fit, 200k tokens", "nested, 0 tokens"]
    heights = [float(each.get("y")) for each in labels]
    assert heights[1] - heights[0] >= 15 and heights[0] - heights[2] >= 15  # lower losses stand lower, none on another
    assert texts(panel, "title") == ["Held-out loss on wiki, nats per token"]
    assert "parameters" in texts(panel, "axis")


def test_members_and_the_ancestor_are_marks():
    [panel] = drawn(LOSSES)
    x, y = axis(panel, False), axis(panel, True)
    boxes = [each for each in panel.iter(f"{SVG}rect") if each.get("class") == "member"]
    for box, (params, loss) in zip(boxes, ((110e6, 3.2), (50e6, 3.7)), strict=True):
        assert float(box.get("x")) + 5 == pytest.approx(x(params), abs=0.2)
        assert float(box.get("y")) + 5 == pytest.approx(y(loss), abs=0.2)
    [mark] = panel.iter(f"{SVG}polygon")
    points = [tuple(map(float, pair.split(","))) for pair in mark.get("points").split()]
    middle = [sum(values) / 4 for values in zip(*points, strict=True)]
    assert middle == pytest.approx([x(130e6), y(3.0)], abs=0.2)
    assert {"large", "small", "big 3.00"} <= set(texts(panel))
    said = [each.text for each in panel.iter(f"{SVG}title")]
    assert "60M, fit, 0 tokens: 3.900 (3.800 to 4.000), 60,000,000 parameters" in said
    assert "big: 3.000, 130,000,000 parameters" in said


def test_an_ancestor_whose_size_is_not_known_is_a_line_at_its_loss():
    rows = [{**each, "params": None} if each["desnet"] == "big" else each for each in LOSSES]
    [panel] = drawn(rows)
    assert list(panel.iter(f"{SVG}polygon")) == []
    [line] = [each for each in panel.iter(f"{SVG}line") if each.get("class") == "ancestor"]
    assert line.get("y1") == line.get("y2") and float(line.get("y1")) == pytest.approx(axis(panel, True)(3.0), abs=0.2)


def test_what_would_set_the_scale_is_named_and_not_drawn():
    [panel] = drawn(LOSSES)
    assert "Too far off to be drawn: rand, 0 tokens 10.25 to 10.75" in texts(panel)
    assert len(lines(panel)) == 3 and max(float(each) for each in texts(panel) if re.fullmatch(r"\d\.\d+", each)) < 5
    [panel] = drawn([each for each in LOSSES if each["init"] != "rand"])
    assert not [each for each in texts(panel) if each.startswith("Too far")]
    part = [
        {**each, "value": 6.44} if each["init"] == "nested" and each["desnet"] == "60M" else each for each in LOSSES
    ]
    [panel] = drawn(part)
    assert texts(panel, "note")[0].startswith("Too far off to be drawn: nested, 0 tokens at 60M 6.44; rand, 0 tokens")
    assert [len(points) for _, points, _ in lines(panel)] == [2, 2, 1]
    far = [{**each, "value": 0.5} if each["desnet"] == "big" else each for each in LOSSES]
    assert "Too far off to be drawn: rand, 0 tokens 10.25 to 10.75; big 0.50" in texts(drawn(far)[0])


def test_light_and_dark_differ_in_their_colours_only():
    figure = family(frame(LOSSES))
    light, dark = as_file(figure, dark=False), as_file(figure, dark=True)
    colour = re.compile(r"#[0-9a-f]{6}")
    assert light != dark and colour.sub("", light) == colour.sub("", dark)
    assert "var(" not in light and "#23272c" in light and "#e2e4e7" in dark and "#23272c" not in dark
    assert light == as_file(family(frame(LOSSES)), dark=False)


def test_a_summary_that_was_written_and_read_gives_the_same_bytes():
    table = frame(LOSSES).astype({"params": "Int64", "tokens": "Int64"})
    text = io.StringIO(table.to_csv(index=False))
    assert as_file(family(pd.read_csv(text)), False) == as_file(family(table), False)


def kept(task: str, *values: float) -> list[dict]:
    rows = [each for each in LOSSES if each["init"] in ("fit", "distilled") and each["tokens"] in (0, None)]
    return [{**each, "task": task, "metric": "kept", "value": v} for each, v in zip(rows, values, strict=True)]


def test_what_is_kept_is_a_second_panel_the_mean_over_tasks():
    scores = [
        {**each, "task": task, "metric": "accuracy"} for task in ("piqa", "siqa") for each in kept(task, *[9] * 4)
    ]
    rows = [*kept("piqa", 90, 60, 50, 80), *kept("siqa", 100, 70, 40, 60)]
    loss, panel = drawn([*LOSSES, *scores, *rows])
    assert texts(panel, "title") == ["Kept of the ancestor's score above chance, percent: mean of 2 tasks"]
    x, y = axis(panel, False), axis(panel, True)
    [(colour, points, _)] = lines(panel)
    assert points == [pytest.approx(place, abs=0.2) for place in ((x(60e6), y(45)), (x(90e6), y(70)))]
    assert colour == lines(loss)[0][0] and axis(loss, False)(90e6) == pytest.approx(x(90e6))
    _, panel = drawn([*LOSSES, *scores, *rows, *kept("all tasks", 95, 65, 44, 71)])  # rows of a mean go before ours
    assert lines(panel)[0][1] == [pytest.approx(place, abs=0.2) for place in (
        (axis(panel, False)(60e6), axis(panel, True)(44)), (axis(panel, False)(90e6), axis(panel, True)(71)),
    )]  # fmt: skip
    assert texts(panel, "title") == ["Kept of the ancestor's score above chance, percent: all tasks"]


def test_sizes_far_apart_stand_on_a_logarithmic_axis():
    rows = [*LOSSES, row("1B", 1_000_000_000, "fit", 0, 3.1)]
    [panel] = drawn(rows)
    places = {
        each.text: float(each.get("x"))
        for each in panel.iter(f"{SVG}text")
        if each.get("class") == "tick" and re.fullmatch(r"\d+[MB]", each.text)
    }
    assert set(places) == {"50M", "100M", "200M", "500M", "1B"}
    assert places["200M"] - places["100M"] == pytest.approx(places["100M"] - places["50M"], abs=0.2)
    [ends] = [points for _, points, _ in lines(panel) if len(points) == 3]
    share = math.log(90 / 60) / math.log(1000 / 60)
    assert (ends[1][0] - ends[0][0]) / (ends[2][0] - ends[0][0]) == pytest.approx(share, abs=0.002)


def test_several_ancestors_are_told_apart_and_no_desnet_is_no_figure():
    other = [{**each, "ancestor": "b"} for each in LOSSES if each["init"] == "fit"]
    [panel] = drawn([*LOSSES, *other])
    assert {"a fit, 0 tokens", "b fit, 200k tokens"} <= set(texts(panel, "label"))
    assert family(frame([each for each in LOSSES if each["tokens"] is None])) is None
    assert family(frame([])) is None
