"""From a number of parameters or bytes to a shape between two neighbours of the chain (no torch here)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from colpipe.architectures.family import Family
from colpipe.architectures.flops import BYTES
from colpipe.architectures.widths import BLOCK, USUAL, align, alignment, head_step, hidden_step
from colpipe.config.parts import Architecture, Shape, Strict, Tokens, parse_tokens
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
BYTE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
TOLERANCE = 0.01


def parse_bytes(value: Any) -> Any:
    """`"440MB"` and `440_000_000` alike; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and value[-2:] in BYTE_UNITS:
        try:
            return round(float(value[:-2]) * BYTE_UNITS[value[-2:]])
        except ValueError:
            return value
    return value


class Budget(Strict):
    """A size by what it costs."""

    params: Annotated[Tokens, BeforeValidator(parse_tokens), Field(gt=0)] | None = None
    """Parameters (`220M` is understood); the shape is planned."""
    memory: Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)] | None = None
    """Bytes of weights (`440MB` is understood) at `precision`; the shape is planned. Each generated token reads all weights
    once, so this is also a budget of latency: bytes / memory bandwidth."""
    precision: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    """Of `memory`."""

    @property
    def parameters(self) -> int | None:
        """The parameters that the budget allows."""
        if self.memory is not None:
            return self.memory // BYTES[self.precision]
        return self.params


def automatic_alpha(smaller: int, larger: int, target: int) -> float:
    """The weight of the smaller neighbour by parameter counts: (P_large − P) / (P_large − P_small), within 0 and 1."""
    if larger == smaller:
        return 0.0
    return min(1.0, max(0.0, (larger - target) / (larger - smaller)))


@dataclass(frozen=True)
class Endpoint:
    """A neighbour: its name and shape."""

    name: str
    shape: Shape


def plan_shape(architecture: Architecture, smaller: Endpoint, larger: Endpoint, parameters: int) -> Shape:
    """The shape nearest to the straight line between two neighbours that has the wanted number of parameters.

    Depth, heads, channels and units lie between those of the neighbours; heads are whole, and what both neighbours have
    stays. Channels and units are multiples of `architecture.align`, where it says nothing of 64, or of 32 if nothing else
    comes within 1 %; next to models of less than 256 channels they are any. Units are rounded to a sixteenth of their power
    of two, or finer where that is needed.

    Args:
        smaller, larger: neighbours whose parameter counts enclose the request.
        parameters: wanted.

    Raises:
        ColpipeError: the neighbours' heads differ, or nothing between them comes within 1 %; the message has the closest
            there is, how far it is from the request, and a shape of any width.
    """
    small, large = (architecture.sizes(end.shape) for end in (smaller, larger))
    for axis, words in (("head_dim", "channels in a head"), ("query", "query heads per key/value head")):
        if small[axis] != large[axis]:
            raise ColpipeError(
                f"{smaller.name} has {small[axis]} {words}, {larger.name} {large[axis]}; heads are taken whole, so that "
                "nothing can be planned between them"
            )
    step = alignment(architecture.align, min(small["hidden"], large["hidden"]))
    closest = None
    for each in [step, BLOCK] if architecture.align is None and step == USUAL else [step]:
        candidates = sorted(
            _candidates(architecture, smaller.shape, larger.shape, parameters, each), key=lambda entry: entry[0]
        )
        closest = min(
            (shape for _, shape in candidates), key=lambda s: abs(architecture.parameters(s) - parameters), default=None
        )
        for _, shape in candidates:
            if abs(architecture.parameters(shape) / parameters - 1) <= TOLERANCE:
                return shape
    between = f"between {smaller.name} ({smaller.shape}) and {larger.name} ({larger.shape})"
    otherwise = _unaligned(architecture, smaller, larger, parameters) if each >= BLOCK else ""
    multiples = f", hidden and ffn in multiples of {each}," if otherwise else ""
    near = f"; the closest is {_described(architecture, closest, parameters)}" if closest else ""
    raise ColpipeError(
        f"no shape {between}{multiples} has {parameters:,} parameters within {TOLERANCE:.0%}{near}{otherwise}"
    )


def _unaligned(architecture: Architecture, smaller: Endpoint, larger: Endpoint, parameters: int) -> str:
    """What there would be without alignment, as words; empty where it makes no difference."""
    try:
        shape = plan_shape(architecture.model_copy(update={"align": 1}), smaller, larger, parameters)
    except ColpipeError:
        return ""
    return f"; of any width (architecture.align: 1) {_described(architecture, shape, parameters)}"


def _described(architecture: Architecture, shape: Shape, parameters: int) -> str:
    count = architecture.parameters(shape)
    return f"{shape} with {count:,} ({count / parameters - 1:+.2%})"


def _candidates(
    architecture: Architecture, small: Shape, large: Shape, parameters: int, step: int
) -> Iterator[tuple[float, Shape]]:
    """(distance from the straight line, shape) of everything between two neighbours, units chosen to meet the request."""
    table, sizes = architecture.table, architecture.sizes(large)
    for layers in _span(small.layers, large.layers):
        for groups in _span(small.kv_heads, large.kv_heads, head_step(table, sizes, step)):
            heads = groups * (large.heads // large.kv_heads)
            own_dim = "head_dim" in table.keys
            for hidden in _widths(small, large, heads, table, step) if own_dim else [heads * large.head_dim]:
                for ffn in _units(architecture, small, large, layers, heads, groups, hidden, parameters, step):
                    shape = Shape(
                        layers=layers, heads=heads, kv_heads=groups, head_dim=large.head_dim, hidden=hidden, ffn=ffn
                    )
                    yield _distance(shape, small, large, ffn), shape


def _span(first: int, last: int, step: int = 1) -> list[int]:
    """Multiples of a step between two ends; where these are the same there is no choice."""
    low, high = sorted((first, last))
    return [low] if low == high else [size for size in range(low, high + 1) if size % step == 0]


def _widths(small: Shape, large: Shape, heads: int, family: Family, step: int) -> list[int]:
    """Channels between the neighbours: aligned, and multiples of the heads if need be. Of any width: about 16 steps."""
    low, high = sorted((small.hidden, large.hidden))
    if step >= BLOCK:
        widths = _span(low, high, hidden_step(family, heads, step))
        return [width for width in widths if not family.whole_heads or width % heads == 0]
    step = max(step, min(64, 2 ** max(3, ((high - low) // 16).bit_length() - 1)))
    widths = [width for width in range(low, high + 1) if width in (low, high) or width % step == 0]
    if family.whole_heads:
        widths = sorted({max(low, min(high, align(width, heads))) for width in widths})
        widths = [width for width in widths if width % heads == 0]
    return widths


def _units(architecture, small, large, layers, heads, groups, hidden, parameters, step) -> list[int]:
    """Feed-forward units: in proportion to the neighbours', and exactly as many as the request leaves, rounded."""

    def count(ffn: int) -> int:
        shape = Shape(layers=layers, heads=heads, kv_heads=groups, head_dim=large.head_dim, hidden=hidden, ffn=ffn)
        return architecture.parameters(shape)

    low, high = sorted((small.ffn, large.ffn))
    if low == high:
        return [low]
    share = (hidden - small.hidden) / (large.hidden - small.hidden) if large.hidden != small.hidden else 0.5
    ratio = small.ffn / small.hidden + share * (large.ffn / large.hidden - small.ffn / small.hidden)
    per_unit = count(2) - count(1)
    wanted = (parameters - count(1)) / per_unit + 1
    coarse = 1 << max(8, min(256, hidden // 8)).bit_length() - 1
    usual = align(ratio * hidden, step if step >= BLOCK else 1)
    least, most = -(-low // step) * step, high // step * step
    choices = {usual, align(wanted, max(1, coarse // step) * step), min(most, max(least, align(wanted, step)))}
    return sorted(ffn for ffn in choices if low <= ffn <= high)


def _distance(shape: Shape, small: Shape, large: Shape, ffn: int) -> float:
    """How far depth, channels, heads and units are from one common share of the way between the neighbours."""
    shares = [
        (getattr(shape, axis) - getattr(small, axis)) / (getattr(large, axis) - getattr(small, axis))
        for axis in ("layers", "hidden", "kv_heads", "ffn")
        if getattr(large, axis) != getattr(small, axis)
    ]
    mean = sum(shares) / max(1, len(shares))
    spread = sum((share - mean) ** 2 for share in shares)
    # the usual ratio of units to channels is worth keeping, too
    usual = small.ffn / small.hidden + (large.ffn / large.hidden - small.ffn / small.hidden) * mean
    rough = 0 if ffn % 64 == 0 or ffn == 4 * shape.hidden else 0.001
    return spread + (ffn / shape.hidden / usual - 1) ** 2 + rough
