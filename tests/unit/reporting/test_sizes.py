"""Rectangles have the proportions of the models."""

import xml.etree.ElementTree as xml

import pytest

from colpipe.reporting.sizes import Box, readable, to_scale

BOXES = [
    Box("ancestor", "big", 400, 8, 64),
    Box("ancestor", "closed", None, None, None),
    Box("chain", "big", 100, 4, 32),
    Box("desnet", "between", 60, 3, 16),
    Box("chain", "small", 40, 2, 8),
]
BIG, LARGE, BETWEEN, SMALL = (("ancestor", "big"), ("chain", "big"), ("desnet", "between"), ("chain", "small"))


def test_width_and_depth_are_to_scale():
    lessons = [(BIG, LARGE, True), (LARGE, SMALL, True), (BIG, SMALL, False)]
    drawn = xml.fromstring(to_scale(BOXES, lessons, [(LARGE, BETWEEN), (SMALL, BETWEEN)]))
    known = [rectangle for rectangle in drawn.iter("rect") if "unknown" not in rectangle.get("class")]
    for axis, values in (("width", [64, 32, 16, 8]), ("height", [8, 4, 3, 2])):
        drawn_as = [float(rectangle.get(axis)) for rectangle in known]
        assert [each / drawn_as[0] for each in drawn_as] == pytest.approx([value / values[0] for value in values])
    floors = [float(each.get("y")) + float(each.get("height")) for each in known]
    assert floors[0] == floors[1] == floors[3] < floors[2]
    kinds = [path.get("class") for path in drawn.iter("path") if path.get("class")]
    assert kinds == ["mixes", "mixes", "teaches step", "teaches step", "teaches direct"]
    assert "size not known" in [text.text for text in drawn.iter("text")]


def test_what_is_to_be_said_of_a_size_is_said_with_it():
    boxes = [box._replace(note="not quantisable") if box.name == "between" else box for box in BOXES]
    titles = [title.text for title in xml.fromstring(to_scale(boxes, [], [])).iter("title")]
    assert [title for title in titles if "quantisable" in title] == [
        "between: 3 layers × 16 channels, 60 parameters, not quantisable"
    ]


def test_counts_as_people_say_them():
    assert [readable(count) for count in (None, 12, 20_112, 138_000_000, 1_090_000_000)] == [
        "",
        "12",
        "20.1k",
        "138M",
        "1.09B",
    ]
