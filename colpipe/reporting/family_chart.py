"""The first figure of a study, drawn: `family.py` says what is in it (no torch here).

On the page it has the page's colours. As a file it has those of the page's light or its dark theme, written out, and
differs in nothing else; its text stays text, in whatever font there is.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from colpipe.reporting.charts import COLOURS, DASHES, Scale
from colpipe.reporting.drawing import drawing, tag, text
from colpipe.reporting.family import Line, Model, Panel, panels
from colpipe.reporting.sizes import readable

PAGE = Path(__file__).with_name("page.css")  # its colours, each as (light, dark) or one for both
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
FAR = {
    "loss": 1.5,
    "kept": 110.0,
}  # from the best DesNet: whatever is farther is named below, or it would set the scale
LABEL = "Quality of the models against their parameters"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 320, 46, 34, 44  # of a panel, and the margins of its axes
LETTER = 6.6  # of the width of a label, on average
LINE = 15  # between two lines of text
SPREAD = 4  # times as many parameters as the smallest model the largest has where the axis becomes logarithmic


class Axes(NamedTuple):
    """Where models stand in a panel; `right` is where it ends, and the margin for the names of lines begins."""

    x: Scale
    y: Scale
    right: float
    is_logarithmic: bool
    metric: str

    def size(self, params: float) -> float:
        """Where a number of parameters stands."""
        return self.x(math.log(params) if self.is_logarithmic else params)

    def place(self, model: Model) -> tuple[float, float]:
        """Where a model of known size stands."""
        return self.size(model.params), self.y(model.value)


def family(summary: pd.DataFrame) -> Markup | None:
    """The figure in the page's colours; None where it would have no line.

    Args:
        summary: of one study, as `summary.summarise` gives it or `summary.csv` holds it.
    """
    marks, height, found = [], 0.0, list(panels(summary))
    sizes = [model.params for panel in found for model in panel.models if not math.isnan(model.params)]
    longest = max((len(line.label) for panel in found for line in panel.lines), default=0)
    for panel in found:
        near, told = _within_reach(panel)
        axes = _axes(near, sizes, WIDTH - 40 - LETTER * longest)
        content = [*_frame(near, axes, sizes), *_content(near, axes), *_below(told)]
        marks.append(tag("g", content, transform=f"translate(0 {height:g})"))
        height += HEIGHT + (LINE * len(told) + 8 if told else 0)
    return drawing(WIDTH, height, marks, LABEL, "family") if marks else None


def as_file(figure: Markup, dark: bool) -> str:
    """The figure as the text of a file of its own, for a light or a dark page."""
    colours = _colours(dark)
    named = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], str(figure))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="{escape(FONT)}" '
    return named.replace("<svg ", head, 1) + "\n"


def _colours(dark: bool) -> dict[str, str]:
    found = re.findall(r"--([\w-]+): (?:light-dark\((#\w+), (#\w+)\)|(#\w+));", PAGE.read_text())
    return {name: one or (deep if dark else light) for name, light, deep, one in found}


def _within_reach(panel: Panel) -> tuple[Panel, list[str]]:
    """What of a panel is near enough to its best DesNet to be drawn, and lines of text that name the rest."""
    values = [model.value for line in panel.lines for model in line.models]
    best = min(values) if panel.metric == "loss" else max(values)

    def split(models: Sequence[Model]) -> tuple[list[Model], list[Model]]:
        far = [model for model in models if abs(model.value - best) > FAR[panel.metric]]
        return [model for model in models if model not in far], far

    lines, words = [], []
    for line in panel.lines:
        near, far = split(line.models)
        lines += [line._replace(models=near)] if near else []
        if far:
            at = f" at {', '.join(model.name for model in far)}" if near else ""
            least, most = min(model.value for model in far), max(model.value for model in far)
            words.append(f"{line.label}{at} {least:.2f}" + (f" to {most:.2f}" if len(far) > 1 else ""))
    members, ancestors = split(panel.members), split(panel.ancestors)
    words += [f"{model.name} {model.value:.2f}" for model in (*members[1], *ancestors[1])]
    told = textwrap.wrap(f"Too far off to be drawn: {'; '.join(words)}", round(WIDTH / LETTER)) if words else []
    return panel._replace(lines=lines, members=members[0], ancestors=ancestors[0]), told


def _axes(panel: Panel, sizes: Sequence[float], right: float) -> Axes:
    """Axes for all values of a panel and all sizes of the figure; of sizes that lie far apart, their logarithms."""
    least, most = min(sizes), max(sizes)
    is_logarithmic = most > SPREAD * least
    ends = (math.log(least), math.log(most)) if is_logarithmic else (least, most)
    values = [model.value for model in panel.models]
    margin = 0.06 * (max(values) - min(values) or 1)
    y = Scale(min(values) - margin, max(values) + margin, HEIGHT - BOTTOM, TOP)
    return Axes(Scale(*ends, LEFT + 14, right - 14), y, right, is_logarithmic, panel.metric)


def _frame(panel: Panel, axes: Axes, sizes: Sequence[float]) -> Iterator[str]:
    """Title, grid and the numbers along the axes."""
    yield text(LEFT, 16, panel.title, class_="title", **_words(13, "ink", font_weight=600))
    for tick in axes.y.ticks(6):
        place = axes.y(tick)
        yield tag("line", x1=LEFT, x2=axes.right, y1=place, y2=place, stroke="var(--line)")
        yield text(LEFT - 7, place + 4, f"{tick:g}", class_="tick", text_anchor="end", **_words(11, "quiet"))
    middle = {"text_anchor": "middle", **_words(11, "quiet")}
    for tick in _round_sizes(axes, sizes):
        yield text(axes.size(tick), HEIGHT - BOTTOM + 17, readable(round(tick)), class_="tick", **middle)
    yield text((LEFT + axes.right) / 2, HEIGHT - 9, "parameters", class_="axis", **middle)


def _round_sizes(axes: Axes, sizes: Sequence[float]) -> list[float]:
    if not axes.is_logarithmic:
        return axes.x.ticks(6)
    least, most = min(sizes), max(sizes)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    return [
        tick for power in powers for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if least <= tick <= most
    ]


def _content(panel: Panel, axes: Axes) -> Iterator[str]:
    """The marks, and the name of each line in the margin, joined with its end."""
    for model in panel.ancestors:
        yield from _ancestor(model, axes)
    for line in panel.lines:
        yield _line(line, axes)
    for model in panel.members:
        yield from _member(model, axes)
    ends = [axes.place(line.models[-1]) for line in panel.lines]
    heights = _apart([height for _, height in ends], TOP, HEIGHT - BOTTOM)
    for line, (a, b), height in zip(panel.lines, ends, heights, strict=True):
        start = axes.right + 10
        joint = f"M{a + 5:.1f} {b:.1f} L{start - 2:.1f} {height:.1f}"
        yield tag("path", d=joint, fill="none", stroke="var(--quiet)", stroke_width=0.7)
        yield tag("line", x1=start, x2=start + 18, y1=height, y2=height, **_stroke(line))
        yield text(start + 23, height + 4, line.label, class_="label", **_words(12, "ink"))


def _below(told: Sequence[str]) -> Iterator[str]:
    for number, words in enumerate(told):
        yield text(LEFT, HEIGHT + 8 + LINE * number, words, class_="note", **_words(11, "quiet"))


def _words(size: int, colour: str, **more: object) -> dict[str, Any]:
    """How text looks in a file; the page's style sheet has its own sizes."""
    return {"font_size": size, "style": f"fill: var(--{colour})", **more}


def _said(model: Model, axes: Axes, label: str) -> str:
    """What a mark says on hovering."""
    digits, unit = (3, "") if axes.metric == "loss" else (1, " %")
    ends = "" if math.isnan(model.low) else f" ({model.low:.{digits}f} to {model.high:.{digits}f})"
    size = "" if math.isnan(model.params) else f", {model.params:,.0f} parameters"
    return tag("title", escape(f"{label}: {model.value:.{digits}f}{unit}{ends}{size}"))


def _stroke(line: Line) -> dict[str, Any]:
    dashes = DASHES[line.dashes % len(DASHES)]
    colour = {"stroke": f"var(--method-{line.colour % COLOURS})", "stroke_width": 2}
    return {**colour, **({"stroke_dasharray": dashes} if dashes else {})}


def _line(line: Line, axes: Axes) -> str:
    places = [axes.place(model) for model in line.models]
    marks = [tag("polyline", points=_points(places), fill="none", **_stroke(line))]
    for model, (a, b) in zip(line.models, places, strict=True):
        said = _said(model, axes, f"{model.name}, {line.label}")
        marks.append(tag("circle", said, cx=a, cy=b, r=3.5, fill=f"var(--method-{line.colour % COLOURS})"))
    return tag("g", marks, class_="line")


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _member(model: Model, axes: Axes) -> Iterator[str]:
    a, b = axes.place(model)
    box = {"x": a - 5, "y": b - 5, "width": 10, "height": 10, "class_": "member"}
    said = _said(model, axes, f"{model.name}, of the chain")
    yield tag("rect", said, **box, fill="none", stroke="var(--ink)", stroke_width=1.5)
    yield text(a, b - 9, model.name, text_anchor="middle", class_="name", **_words(11, "quiet"))


def _ancestor(model: Model, axes: Axes) -> Iterator[str]:
    """A dotted line at its value, and a mark where its size is known."""
    said, b, a = _said(model, axes, model.name), axes.y(model.value), axes.right
    dotted = {"stroke": "var(--quiet)", "stroke_dasharray": "2 4"}
    yield tag("line", said, x1=LEFT, x2=a, y1=b, y2=b, class_="ancestor", **dotted)
    if not math.isnan(model.params):
        a = axes.size(model.params)
        corners = [(a - 7, b), (a, b - 7), (a + 7, b), (a, b + 7)]
        yield tag("polygon", said, points=_points(corners), fill="var(--ink)", class_="ancestor")
    words, below = (f"{model.name} {model.value:.2f}", b + 16) if axes.metric == "loss" else (model.name, b - 8)
    left = {"text_anchor": "end"} if a > WIDTH / 2 else {}
    yield text(a - 12 if left else a + 12, below, words, class_="name", **left, **_words(12, "ink"))


def _apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The same heights, moved as little as needed to be a line of text apart between two others; closer where they are too
    many for that."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    gap = min(LINE, (bottom - top) / max(1, len(order) - 1))
    places = [heights[place] for place in order]
    for number, place in enumerate(places):
        least = places[number - 1] + gap if number else top
        places[number] = max(place, least)
    limit = bottom
    for number in reversed(range(len(places))):
        places[number] = limit = min(places[number], limit)
        limit -= gap
    found = dict(zip(order, places, strict=True))
    return [found[place] for place in range(len(heights))]
