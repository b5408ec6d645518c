"""Curves stand where their numbers say; what is drawn is read back from the SVG."""

import xml.etree.ElementTree as xml

import pytest

from colpipe.reporting.charts import Scale, interval, look, loss_curves

PANELS = {"upper": {"a & b": [(0, 6.0), (500, 5.0), (1000, 4.0)]}, "lower": {"rand": [(0, 8.0), (1000, 5.0)]}}


def test_ticks_are_round_and_inside():
    scale = Scale(3.71, 6.02, 100, 0)
    assert scale.ticks(6) == [4.0, 4.5, 5.0, 5.5, 6.0]
    assert scale(3.71) == 100 and scale(6.02) == 0
    assert Scale(2.0, 2.0, 0, 10)(2.0) == 0


def test_points_lie_on_the_axes_that_all_panels_share():
    upper, lower = (xml.fromstring(svg) for svg in loss_curves(PANELS, "recovery tokens", ["rand", "a & b"]))
    points = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in upper.iter("circle")]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.06)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.06)
    ends = [float(dot.get("cy")) for dot in lower.iter("circle")]
    assert ends[1] == points[1][1] and ends[0] < points[0][1]  # 5.0 in both; 8.0 stands higher than 6.0
    assert next(upper.iter("title")).text == "a & b: 6.000 at 0 recovery tokens"
    assert [group.get("data-method") for drawn in (upper, lower) for group in drawn.iter("g")] == ["1", "0"]


def test_a_uniform_guess_is_said_and_drawn_where_the_axis_reaches_it():
    [drawn, _] = (xml.fromstring(svg) for svg in loss_curves(PANELS, "tokens", ["rand", "a & b"], 512))  # ln 512 = 6.24
    [line] = [line for line in drawn.iter("line") if line.get("class") == "uniform"]
    heights = [float(dot.get("cy")) for dot in drawn.iter("circle")]
    assert heights[0] > float(line.get("y1")) > heights[0] - (heights[1] - heights[0])  # 6.24 lies between 6 and 7
    words = [each.text for each in drawn.iter("text")]
    assert "nats per token; a uniform guess has 6.24 (ln 512)" in words
    [far, _] = loss_curves(PANELS, "tokens", ["rand", "a & b"], 50257)
    assert 'class="uniform"' not in far and "10.82 (ln 50,257)" in far


def test_levels_are_lines_that_the_axis_reaches():
    marks = {"lower": {"stop_at 0.9": 3.0, "the <ancestor>": 2.7}}
    upper, lower = (xml.fromstring(svg) for svg in loss_curves(PANELS, "tokens", ["rand", "a & b"], levels=marks))
    assert [line for line in upper.iter("line") if line.get("class") == "level"] == []
    stop, ancestor = [line for line in lower.iter("line") if line.get("class") == "level"]
    dots = [float(dot.get("cy")) for dot in lower.iter("circle")]
    nat = (dots[1] - dots[0]) / 3  # from 8.0 to 5.0
    assert float(stop.get("y1")) == float(stop.get("y2")) == pytest.approx(dots[1] + 2 * nat, abs=0.2)
    assert float(ancestor.get("y1")) == pytest.approx(dots[1] + 2.3 * nat, abs=0.2)
    assert [line.find("title").text for line in (stop, ancestor)] == ["stop_at 0.9: 3.000", "the <ancestor>: 2.700"]
    words = {each.text: float(each.get("y")) for each in lower.iter("text")}
    assert words["stop_at 0.9"] < float(stop.get("y1")) < float(ancestor.get("y1")) < words["the <ancestor>"] < 280


def test_more_ways_than_colours_are_dashed():
    looks = [tuple(look(number).items()) for number in range(21)]
    assert len(set(looks)) == 21
    assert "stroke_dasharray" not in look(6) and "stroke_dasharray" in look(7)


def test_an_interval_is_drawn_to_the_scale_of_its_column():
    drawn = xml.fromstring(interval(25, 50, 100, 0, 100))
    line, dot = next(drawn.iter("line")), next(drawn.iter("circle"))
    assert [float(line.get(end)) for end in ("x1", "x2")] == [27, 96] and float(dot.get("cx")) == 50
