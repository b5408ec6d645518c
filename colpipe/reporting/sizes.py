"""Models as rectangles of their width and depth, to scale."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from colpipe.reporting.drawing import arrow, bent, drawing, tag, text

Key = tuple[str, str]  # kind and name of a model
COLUMN, TALLEST, WIDEST, UNKNOWN = 118, 104, 104, 40  # a model's column, and the rectangles in it
LABEL, ARC, GAP = 56, 46, 62  # below a rectangle, above the upper row, between the rows


class Box(NamedTuple):
    """A model.

    Attributes:
        kind: `ancestor`, `chain` or `desnet`.
        parameters, layers, hidden: its size; None where it is not known.
        note: what else is to be said of its size.
    """

    kind: str
    name: str
    parameters: int | None
    layers: int | None
    hidden: int | None
    note: str = ""

    @property
    def key(self) -> Key:
        """Kind and name: an ancestor and a member may have the same name."""
        return self.kind, self.name


def to_scale(
    models: Sequence[Box], lessons: Iterable[tuple[Key, Key, bool]], mixes: Iterable[tuple[Key, Key]]
) -> Markup:
    """Width × depth of every model: the chain above, from the ancestor down, DesNets below their neighbours.

    Args:
        models: in the order of columns; of one at least the size is known.
        lessons: (teacher, student, whether one step along the chain), by their keys: the arrows.
        mixes: (neighbour, DesNet that is built from it): the lines.
    """
    known = [model for model in models if model.layers]
    unit_x, unit_y = WIDEST / max(model.hidden for model in known), TALLEST / max(model.layers for model in known)
    heights = {model.key: model.layers * unit_y if model.layers else UNKNOWN for model in models}
    low = [heights[model.key] for model in models if model.kind == "desnet"]
    upper: float = ARC + TALLEST  # where the upper row stands
    lower = upper + LABEL + GAP + max(low) if low else upper
    floors = {model.key: lower if model.kind == "desnet" else upper for model in models}
    middles = {model.key: COLUMN * (number + 0.5) for number, model in enumerate(models)}
    tops = {key: floors[key] - heights[key] for key in floors}
    marks = [arrow("lesson")]
    for neighbour, desnet in mixes:
        x1, y1, x2, y2 = middles[neighbour], upper + LABEL + 2, middles[desnet], tops[desnet] - 4
        marks.append(tag("path", d=bent(x1, y1, (y1 + y2) / 2, x2, y2), class_="mixes"))
    for teacher, student, step in lessons:
        y1, y2 = tops[teacher] - 5, tops[student] - 7
        path = bent(middles[teacher], y1, min(y1, y2) - (18 if step else 34), middles[student], y2)
        marks.append(tag("path", d=path, class_=f"teaches {'step' if step else 'direct'}", marker_end="url(#lesson)"))
    for model in models:
        x, floor = middles[model.key], floors[model.key]
        wide = float(model.hidden * unit_x if model.layers else UNKNOWN)
        size = f"{model.layers} layers × {model.hidden} channels" if model.layers else "size not known"
        count = f", {model.parameters:,} parameters" if model.parameters else ""
        count += f", {model.note}" if model.note else ""
        place = {
            "x": x - wide / 2,
            "y": float(tops[model.key]),
            "width": wide,
            "height": float(heights[model.key]),
            "rx": 2,
        }
        kind = model.kind if model.layers else f"{model.kind} unknown"
        marks.append(tag("rect", tag("title", escape(f"{model.name}: {size}{count}")), **place, class_=kind))
        short = f"{model.layers}L × {model.hidden}" if model.layers else "size not known"
        lines = ((model.name, "name"), (short, "tick"), (readable(model.parameters), "tick"))
        for line, (words, look_) in enumerate(lines):
            marks.append(text(x, floor + 17 + 15 * line, words, class_=look_, text_anchor="middle"))
    width, height = COLUMN * len(models), lower + LABEL
    return drawing(width, height, marks, "Models drawn to scale", "models")


def readable(parameters: int | None) -> str:
    """A count as people say it: 138M, 20.1k; empty where it is not known."""
    if not parameters:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)
