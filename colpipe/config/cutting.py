"""From a number of parameters to a shape that is cut out of one model (no torch here).

Layers go first, down to two thirds: that costs least (docs/initialisers.md). Below, feed-forward units go with them, and
where less than a third of either would be left, the model gets narrower.
"""

from collections.abc import Iterator
from itertools import product
from math import ceil

from colpipe.architectures.widths import BLOCK, USUAL, alignment, head_step, hidden_step
from colpipe.config.parts import Architecture, Shape
from colpipe.config.sizing import TOLERANCE
from colpipe.errors import ColpipeError

DEEP = 2 / 3  # of the layers: above, all units are kept
FLOORS = (
    1 / 3,
    1 / 8,
)  # of the layers, and of the units beside as many channels: the least, and where nothing else is left
STEEPNESS = 0.75  # of how units follow the layers: 0.4 of these with 0.68 of those was the best 60M of SmolLM2-135M
LEAST = 0.1  # of the parameters


def plan_cut(architecture: Architecture, whole: Shape, parameters: int, within: Shape | None = None) -> Shape:
    """The shape of about so many parameters, within 1 %, that a cut of a model loses least with.

    Widths are multiples of 64, or of 32 where nothing else comes within 1 %; those of models below 256 channels are any.

    Args:
        whole: shape of the model.
        within: no axis is larger than here, so that it can be cut out of a cut; None: than in the model.

    Raises:
        ColpipeError: the request is more than the model has or less than a tenth of it, or nothing comes within 1 %.
    """
    most = architecture.parameters(whole)
    if not LEAST * most <= parameters <= most * (1 + TOLERANCE):
        than = "more than" if parameters > most else "less than a tenth of"
        raise ColpipeError(
            f"{parameters:,} parameters are {than} the model's {most:,}; give {ceil(LEAST * most):,} to {most:,}"
        )
    within = within or whole
    usual = alignment(architecture.align, whole.hidden)
    steps = [USUAL, BLOCK] if usual == USUAL and architecture.align is None else [usual]
    widths = [each for each in _widths(architecture, whole) if each[1] <= within.kv_heads and each[2] <= within.hidden]
    for floor, (heads, groups, hidden), step in product(FLOORS, widths, steps):
        if found := list(_depths(architecture, whole, within, parameters, heads, groups, hidden, step, floor)):
            return min(found, key=lambda entry: entry[0])[1]
    raise ColpipeError(f"no cut of {whole} has {parameters:,} parameters within {TOLERANCE:.0%}; another size may do")


def _widths(architecture: Architecture, whole: Shape) -> Iterator[tuple[int, int, int]]:
    """(heads, key/value heads, channels), the model's own and then narrower and narrower ones."""
    yield whole.heads, whole.kv_heads, whole.hidden
    table, step = architecture.table, alignment(architecture.align, whole.hidden)
    whole_groups = head_step(table, architecture.sizes(whole), step)
    for groups in range(whole.kv_heads - 1, 0, -1):
        heads = groups * whole.heads // whole.kv_heads
        if groups % whole_groups == 0:
            if "head_dim" in table.keys:
                unit = hidden_step(table, heads, min(step, BLOCK))
                hidden = max(1, round(whole.hidden * groups / whole.kv_heads / unit)) * unit
            else:
                hidden = heads * whole.head_dim
            if hidden < whole.hidden:
                yield heads, groups, hidden


def _depths(
    architecture: Architecture,
    whole: Shape,
    within: Shape,
    parameters: int,
    heads: int,
    groups: int,
    hidden: int,
    step: int,
    least: float,
) -> Iterator[tuple[float, Shape]]:
    """(how far its units are from what suits its depth, shape) of every depth that comes within 1 %."""

    def shape(layers: int, ffn: int) -> Shape:
        return Shape(layers=layers, heads=heads, kv_heads=groups, head_dim=whole.head_dim, hidden=hidden, ffn=ffn)

    most = whole.ffn * hidden // whole.hidden
    for layers in range(ceil(least * whole.layers), within.layers + 1):
        per_unit = architecture.parameters(shape(layers, 2)) - architecture.parameters(shape(layers, 1))
        exact = 1 + (parameters - architecture.parameters(shape(layers, 1))) // per_unit
        choices = {exact // step * step, -(-exact // step) * step, most if hidden == whole.hidden else 0}
        for ffn in sorted(choices):
            if least * most <= ffn <= min(most, within.ffn):
                off = architecture.parameters(shape(layers, ffn)) / parameters - 1
                if abs(off) <= TOLERANCE:
                    usual = min(1.0, layers / whole.layers / DEEP) ** STEEPNESS
                    yield abs(ffn / most - usual) + abs(off), shape(layers, ffn)
