"""Figures of the report, as SVG text."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "colpipe"  # equal figures are equal files
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import EngFormatter  # noqa: E402

from colpipe.evaluation.uniform import uniform_guess, uniform_loss, within  # noqa: E402

# Okabe and Ito's colours, told apart by colour-blind readers
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLES = ["-", "--", ":"]


def subplots(rows: int, columns: int, **more):
    """matplotlib's (figure, axes), drawn without a display."""
    return plt.subplots(rows, columns, squeeze=False, **more)


def loss_curve(folder: Path, along: str = "tokens", measure: str = "loss") -> list[tuple[int, float]]:
    """(tokens seen or steps, validation measure) along a training run, from its metrics."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in lines]
    return [(record[along], record[measure]) for record in records if record["split"] == "validation"]


def loss_against_tokens(
    panels: Mapping[str, Mapping[str, list[tuple[int, float]]]],
    along: str = "recovery tokens",
    vocabulary: int | None = None,
) -> str:
    """Validation loss along training, a panel per model and a line per method to make it (as in Figures 5b and 7 to 9).

    Args:
        panels: model → method → (tokens or steps, loss in nats per token).
        along: what the horizontal axis counts.
        vocabulary: of the models; the loss of a uniform guess is said then, and a line where the axis reaches so far.
    """
    lines = max(map(len, panels.values()))
    height = 3.4 if lines <= 6 else 3.4 + 0.15 * lines  # many lines are named below the panel
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), height), sharey=True, squeeze=False)
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for number, (label, curve) in enumerate(curves.items()):
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
            points = zip(*curve, strict=True)
            axis.plot(*points, marker="o", markersize=4, color=colour, linestyle=style, label=label)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel(along)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("validation loss (nats per token)")
    if vocabulary:
        figure.supxlabel(uniform_guess(vocabulary), fontsize=8)
        if within(guess := uniform_loss(vocabulary), *axes[0][0].get_ylim()):
            for axis in axes[0]:
                axis.axhline(guess, color="grey", linestyle=":", linewidth=0.8)
    for axis in axes[0] if lines > 6 else [axes[0][-1]]:
        axis.legend(
            frameon=False,
            **({"fontsize": 7, "loc": "upper center", "bbox_to_anchor": (0.5, -0.2)} if lines > 6 else {}),
        )
    return as_svg(figure)


def smoothed(values: Sequence[float], span: int = 9) -> list[float]:
    """Mean over `span` steps around each, fewer at the ends; centred, so that it does not lag behind a falling loss."""
    return pd.Series(values).rolling(span, center=True, min_periods=1).mean().tolist()


def as_svg(figure) -> str:
    """A figure as SVG text; it is closed."""
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
