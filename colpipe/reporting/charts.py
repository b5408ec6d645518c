"""Losses as curves, and intervals as strips in tables."""

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import EngFormatter, MaxNLocator

from colpipe.evaluation.uniform import uniform_guess, uniform_loss, within
from colpipe.reporting.drawing import drawing, tag, text

COLOURS = 7  # --method-0 to --method-6 in page.css; more methods are dashed
DASHES = ("", "6 4", "2 3")


class Scale(NamedTuple):
    """A linear axis: values `low` to `high` lie at places `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / ((self.high - self.low) or 1) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values inside the axis."""
        slack = 1e-9 * (abs(self.high - self.low) or 1)
        places = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        return [place for place in places if self.low - slack <= place <= self.high + slack]


def look(number: int) -> dict[str, str]:
    """Colour and dashes of the n-th method."""
    colour = f"stroke: var(--method-{number % COLOURS}); color: var(--method-{number % COLOURS})"
    dashes = DASHES[number // COLOURS % len(DASHES)]
    return {"style": colour, **({"stroke_dasharray": dashes} if dashes else {})}


def loss_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
    along: str,
    methods: Sequence[str],
    vocabulary: int | None = None,
    levels: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> list[Markup]:
    """Losses along tokens or sizes, a drawing per panel, all with the same vertical axis.

    Args:
        panels: title → method → (tokens or parameters, loss in nats per token).
        along: what the horizontal axis counts.
        methods: all of them, in the order of the legend; a method looks the same in every panel.
        vocabulary: of the models; the loss of a uniform guess is said then, and a line where the axis reaches so far.
        levels: title → words → a loss that the curves are read against: a line with these words.
    """
    width, height, left, right, top, bottom = 400, 280, 52, 14, 30, 44
    points = [point for curves in panels.values() for curve in curves.values() for point in curve]
    losses = [*(loss for _, loss in points), *(loss for marks in levels.values() for loss in marks.values())]
    margin = 0.05 * (max(losses) - min(losses) or 1)
    y = Scale(min(losses) - margin, max(losses) + margin, height - bottom, top)
    said = f"; {uniform_guess(vocabulary)}" if vocabulary else ""
    count, drawings = EngFormatter(sep="", places=None), []
    for title, curves in panels.items():
        places = [place for curve in curves.values() for place, _ in curve]
        x = Scale(min(places), max(places), left + 6, width - right - 6)
        marks = [text(left, 17, title, class_="title")]
        for tick in y.ticks(6):
            marks.append(tag("line", x1=left, x2=width - right, y1=y(tick), y2=y(tick), class_="grid"))
            marks.append(text(left - 7, y(tick) + 4, f"{tick:g}", class_="tick", text_anchor="end"))
        for tick in x.ticks(5):
            marks.append(text(x(tick), height - bottom + 17, count(tick), class_="tick", text_anchor="middle"))
        marks.append(text((left + width - right) / 2, height - 7, along, class_="axis", text_anchor="middle"))
        marks.append(
            text(
                0,
                0,
                f"nats per token{said}",
                class_="axis",
                text_anchor="middle",
                transform=f"translate(12 {height / 2}) rotate(-90)",
            )
        )
        if vocabulary and within(guess := uniform_loss(vocabulary), y.low, y.high):
            title_ = tag("title", escape(uniform_guess(vocabulary)))
            marks.append(tag("line", title_, x1=left, x2=width - right, y1=y(guess), y2=y(guess), class_="uniform"))
        for words, loss in levels.get(title, {}).items():
            title_ = tag("title", escape(f"{words}: {loss:.3f}"))
            marks.append(tag("line", title_, x1=left, x2=width - right, y1=y(loss), y2=y(loss), class_="level"))
        for label, curve in curves.items():
            marks.append(_curve(label, methods.index(label), [(x(a), y(b)) for a, b in curve], curve, along))
        for words, loss in levels.get(title, {}).items():  # two that are near each other are named on either side
            base = y(loss) + (12 if loss == min(levels[title].values()) else -4)
            marks.append(text(width - right, base, words, class_="tick level-name", text_anchor="end"))
        drawings.append(drawing(width, height, marks, f"{title}: loss against {along}", "curves", stretches=True))
    return drawings


def _curve(label: str, number: int, places: Sequence[tuple[float, float]], curve: Sequence, along: str) -> str:
    line = tag("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places), fill="none")
    dots = (
        tag(
            "circle",
            tag("title", escape(f"{label}: {loss:.3f} at {place:,} {along}")),
            cx=float(a),
            cy=float(b),
            r=3.2,
            fill="currentColor",
        )
        for (a, b), (place, loss) in zip(places, curve, strict=True)
    )
    return tag("g", [line, *dots], class_="method", data_method=number, **look(number))


def interval(low: float, value: float, high: float, least: float, most: float) -> Markup:
    """A value with its interval, on an axis from `least` to `most` that the rows of a table share."""
    x = Scale(least, most, 4, 96)
    line = tag("line", x1=x(low), x2=x(high), y1=7, y2=7)
    dot = tag("circle", cx=x(value), cy=7, r=3.5, fill="currentColor")
    return drawing(100, 14, [line, dot], f"{low:.3g} to {high:.3g}", "interval")
