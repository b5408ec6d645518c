"""The workflow of a study, rule by rule, in layers from the sources down."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

from markupsafe import Markup

from colpipe.reporting.drawing import arrow, bent, drawing, tag, text

# A rule's box, from layer to layer, between neighbours, and a line that passes a layer.
BOX, TALL, ROW, GAP, PASS = 152, 44, 74, 16, 22
SWEEPS = 4  # down and up again; more changed no order
Edge = tuple[str, str]
Place = str | tuple[Edge, int]  # a rule, or the layer that a line passes


def workflow(counts: Mapping[str, int], edges: Iterable[Edge]) -> Markup:
    """Rules as boxes with the number of their jobs; a line for every use.

    A use that a longer path implies is left out. What goes against the order of `counts` (cached log-probabilities of
    a teacher that was itself distilled with some) is dashed.
    """
    order, edges = list(counts), set(edges)
    forward = {(a, b) for a, b in edges if order.index(a) < order.index(b)}
    backward = {(a, b) for a, b in edges if order.index(a) > order.index(b)}
    direct = reduced(order, forward)
    depths = layers_of(order, direct)
    rows = arranged(order, direct, depths)
    middles, width = _middles(rows)
    top = {rule: 10.0 + ROW * depth for rule, depth in depths.items()}
    marks = [arrow("use")]
    for a, b in sorted(direct, key=lambda edge: (order.index(edge[0]), order.index(edge[1]))):
        stops = [(middles[(a, b), depth], 10.0 + ROW * depth) for depth in range(depths[a] + 1, depths[b])]
        marks.append(
            tag(
                "path",
                d=_line(middles[a], top[a] + TALL, stops, middles[b], top[b] - 2),
                class_="uses",
                marker_end="url(#use)",
            )
        )
    for a, b in sorted(backward):
        path = bent(middles[a], top[a], (top[a] + top[b] + TALL) / 2, middles[b], top[b] + TALL + 2)
        marks.append(tag("path", d=path, class_="uses back", marker_end="url(#use)"))
    for rule, count in counts.items():
        jobs = f"{count:,} {'job' if count == 1 else 'jobs'}" + (", one after another" if (rule, rule) in edges else "")
        x, y = middles[rule], top[rule]
        place = {"x": x - BOX / 2, "y": y, "width": BOX, "height": TALL, "rx": 6}
        marks.append(tag("rect", tag("title", escape(f"{rule}: {jobs}")), **place, class_="rule"))
        marks.append(text(x, y + 18, rule.replace("_", " "), class_="name", text_anchor="middle"))
        marks.append(text(x, y + 34, jobs, class_="tick", text_anchor="middle"))
    height = 20 + ROW * max(depths.values()) + TALL
    return drawing(width, height, marks, "The workflow of this study", "workflow")


def _line(x: float, y: float, stops: Sequence[tuple[float, float]], end_x: float, end_y: float) -> str:
    """From a box past other layers, straight through each, to a box."""
    path = ""
    for middle, top in stops:
        path += f"{bent(x, y, (y + top) / 2, middle, top)} L{middle:.1f} {top + TALL:.1f} "
        x, y = middle, top + TALL
    return path + bent(x, y, (y + end_y) / 2, end_x, end_y)


def reduced(order: Sequence[str], edges: Iterable[Edge]) -> set[Edge]:
    """The edges of an acyclic graph that no longer path implies (its transitive reduction).

    Args:
        order: the nodes, each after all that it reads.
    """
    edges = set(edges)
    after: dict[str, set[str]] = {}
    for node in reversed(order):
        direct = {b for a, b in edges if a == node}
        after[node] = direct.union(*(after[b] for b in direct))
    return {(a, b) for a, b in edges if not any(b in after[c] for start, c in edges if start == a and c != b)}


def layers_of(order: Sequence[str], edges: Iterable[Edge]) -> dict[str, int]:
    """Node → layer: right after the last that it reads; what reads nothing stands just before its first reader."""
    edges = set(edges)
    depths: dict[str, int] = {}
    for node in order:
        depths[node] = max((depths[a] + 1 for a, b in edges if b == node), default=0)
    for node in order:
        readers = [depths[b] for a, b in edges if a == node]
        if readers and not any(b == node for _, b in edges):
            depths[node] = min(readers) - 1
    return depths


def arranged(order: Sequence[str], edges: Iterable[Edge], depths: Mapping[str, int]) -> list[list[Place]]:
    """Layers from left to right: rules, and lines that pass, each near what it is joined with (barycentre sweeps)."""
    rows: list[list[Place]] = [[] for _ in range(max(depths.values()) + 1)]
    for node in order:
        rows[depths[node]].append(node)
    joined: dict[Place, list[Place]] = {}
    for a, b in sorted(edges, key=lambda edge: (order.index(edge[0]), order.index(edge[1]))):
        passed = [((a, b), depth) for depth in range(depths[a] + 1, depths[b])]
        for place in passed:
            rows[place[1]].append(place)
        stops: list[Place] = [a, *passed, b]
        for one, other in pairwise(stops):
            joined.setdefault(one, []).append(other)
            joined.setdefault(other, []).append(one)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            where = {place: number - len(each) / 2 for each in rows for number, place in enumerate(each)}
            row.sort(key=lambda place: _mean([where[other] for other in joined.get(place, [place])]))
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _middles(rows: Sequence[Sequence[Place]]) -> tuple[dict[Place, float], float]:
    """Place → its middle, with every layer in the middle of the drawing; the drawing's width."""
    wide = [[BOX if isinstance(place, str) else PASS for place in row] for row in rows]
    width = max(sum(each) + GAP * (len(each) - 1) for each in wide) + 2 * GAP
    middles: dict[Place, float] = {}
    for row, each in zip(rows, wide, strict=True):
        left = (width - sum(each) - GAP * (len(each) - 1)) / 2
        for place, own in zip(row, each, strict=True):
            middles[place] = left + own / 2
            left += own + GAP
    return middles, width
