"""The paper's figures, drawn of our numbers; each returns matplotlib's figure."""

import io
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.ticker import EngFormatter

from colpipe.config.paper import tokens_of
from colpipe.reporting.figures import COLOURS, STYLES, as_svg, subplots

NOT_BEST = ("loss",)  # measures where less is better


def pictures(figure) -> tuple[str, bytes]:
    """A figure as SVG text and as a PNG; it is closed."""
    png = io.BytesIO()
    figure.tight_layout()
    figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    return as_svg(figure), png.getvalue()


def _axes(titles: Sequence[str], columns: int = 3, height: float = 3.0):
    """(figure, axes) of a panel per title."""
    wide = min(columns, len(titles))
    rows = -(-len(titles) // wide)
    figure, axes = subplots(rows, wide, figsize=(4 * wide, height * rows))
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(titles) :]:
        axis.set_visible(False)
    return figure, axes.flat


def _legend_beside(axis) -> None:
    """The same lines are in every panel, and cross: their names stand beside the last one."""
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    """The paper's measure, and the loss on held-out text."""
    kept = numbers[numbers.metric.isin(("rouge_l", "loss")) & numbers.ours.notna()]
    return kept.assign(measure=kept.task + " " + kept.metric.str.replace("_", "-"))


def against_budgets(numbers: pd.DataFrame):
    """The random ones along their recovery tokens, LInit without any as level lines (Figure 3)."""
    panels = list(_shown(numbers).groupby(["model", "measure"], sort=False))
    figure, axes = _axes([f"{model}, {measure}" for (model, measure), _ in panels])
    for axis, (_, part) in zip(axes, panels, strict=False):
        random = part[part.init == "rand"]
        axis.plot(range(len(random)), random.ours, marker="o", color=COLOURS[-1], label="random")
        axis.set_xticks(range(len(random)), random.tokens)
        for colour, (_, row) in zip(COLOURS, part[part.init == "linit"].iterrows(), strict=False):
            axis.axhline(row.ours, color=colour, linestyle="--", label=f"LInit, {row.ancestor}")
        axis.set_xlabel("recovery tokens of the random one (the paper's budgets)")
        axis.legend(frameon=False, fontsize=7)
    return figure


def grouped_bars(numbers: pd.DataFrame):
    """A bar per initialiser, with its 95 % interval (Figure 5a)."""
    panels = list(_shown(numbers).groupby("measure", sort=False))
    figure, axes = _axes([measure for measure, _ in panels])
    for axis, (_, part) in zip(axes, panels, strict=False):
        reach = [(part.ours - part.low).clip(lower=0), (part.high - part.ours).clip(lower=0)]
        colours = [COLOURS[place % len(COLOURS)] for place in range(len(part))]
        bars = axis.bar(range(len(part)), part.ours, yerr=reach, capsize=3, color=colours)
        axis.bar_label(bars, fmt="%.3g", fontsize=8, label_type="center", color="white")
        axis.set_xticks(range(len(part)), part.init, rotation=30, ha="right", fontsize=8)
    return figure


def against_alpha(numbers: pd.DataFrame):
    """A line per DesNet along alpha, the best marked (Figure 6)."""
    shown = _shown(numbers).assign(alpha=lambda frame: frame.init.str.removeprefix("alpha-").astype(float))
    panels = list(shown.groupby("measure", sort=False))
    figure, axes = _axes([measure for measure, _ in panels])
    for axis, (measure, part) in zip(axes, panels, strict=False):
        for place, (model, line) in enumerate(part.groupby("model", sort=False)):
            axis.plot(line.alpha, line.ours, marker="o", markersize=3, color=COLOURS[place], label=model)
            best = line.loc[line.ours.idxmin() if measure.endswith(NOT_BEST) else line.ours.idxmax()]
            axis.plot(best.alpha, best.ours, marker="*", markersize=12, color=COLOURS[place])
        axis.set_xlabel("α, the weight of the smaller neighbour")
    _legend_beside(axes[len(panels) - 1])
    return figure


def gaps(numbers: pd.DataFrame):
    """LInit minus random along the recovery tokens, a line per DesNet (Figure 10)."""
    wide = _shown(numbers).pivot_table(index=["measure", "model", "tokens"], columns="init", values="ours", sort=False)
    wide = wide.assign(gap=wide.linit - wide.rand).dropna(subset="gap").reset_index()
    panels = list(wide.groupby("measure", sort=False))
    figure, axes = _axes([f"{measure}: LInit minus random" for measure, _ in panels])
    budgets = sorted(wide.tokens.unique(), key=tokens_of)
    for axis, (_, part) in zip(axes, panels, strict=False):
        for place, (model, line) in enumerate(part.groupby("model", sort=False)):
            places = [budgets.index(tokens) for tokens in line.tokens]
            axis.plot(places, line.gap, marker="o", markersize=4, color=COLOURS[place], label=model)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(range(len(budgets)), budgets)
        axis.set_xlabel("recovery tokens of both (the paper's budgets)")
    _legend_beside(axes[len(panels) - 1])
    return figure


def training_losses(panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]]):
    """Training losses as they came, faint, and smoothed, a panel per model (Figures 4, 5b, 7 to 9).

    Args:
        panels: title → method → (steps, raw losses, smoothed losses).
    """
    figure, axes = _axes(list(panels), columns=4 if len(panels) > 6 else 3)
    for axis, curves in zip(axes, panels.values(), strict=False):
        for place, (method, (steps, raw, smooth)) in enumerate(curves.items()):
            axis.plot(steps, raw, color=COLOURS[place], alpha=0.25, linewidth=0.7)
            axis.plot(steps, smooth, color=COLOURS[place], linestyle=STYLES[place], label=method)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_xlabel("steps")
        axis.set_ylabel("training loss")
        axis.legend(frameon=False, fontsize=7)
    return figure
