"""The page's own drawings: SVG that takes its colours from the page, says on hovering what a mark is, and needs no script.

Classes and `--` variables are those of page.css. Lengths are CSS pixels.
"""

from collections.abc import Iterable
from html import escape

from markupsafe import Markup


def tag(name: str, content: str | Iterable[str] = "", **attributes: object) -> str:
    """An element; `class_` and `stroke_width` are written `class` and `stroke-width`, numbers with a decimal at most.

    `content` is markup: text must be escaped before.
    """
    words = [name]
    for key, value in attributes.items():
        shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return f"<{' '.join(words)}>{content if isinstance(content, str) else ''.join(content)}</{name}>"


def text(x: float, y: float, words: object, **attributes: object) -> str:
    """A line of text."""
    return tag("text", escape(str(words)), x=float(x), y=float(y), **attributes)


def drawing(
    width: float, height: float, content: Iterable[str], label: str, kind: str, stretches: bool = False
) -> Markup:
    """A whole drawing.

    Args:
        label: what a screen reader says of it.
        kind: its class.
        stretches: whether it takes the width that there is, instead of its own.
    """
    own = {} if stretches else {"width": round(width), "height": round(height)}
    box = f"0 0 {width:.0f} {height:.0f}"
    return Markup(tag("svg", content, viewBox=box, role="img", aria_label=label, class_=kind, **own))


def bent(x1: float, y1: float, bend: float, x2: float, y2: float) -> str:
    """A curve between two places that leaves and arrives upright, over the height `bend`."""
    return f"M{x1:.1f} {y1:.1f} C{x1:.1f} {bend:.1f} {x2:.1f} {bend:.1f} {x2:.1f} {y2:.1f}"


def arrow(name: str) -> str:
    """Definition of the head of an arrow; lines name it as `marker_end="url(#<name>)"`. Names are those of a whole page."""
    head = tag("path", d="M0 0 L8 4 L0 8 z", fill="context-stroke")
    size = {"viewBox": "0 0 8 8", "refX": 7, "refY": 4, "markerWidth": 7, "markerHeight": 7}
    return tag("defs", tag("marker", head, id=name, orient="auto", **size))
