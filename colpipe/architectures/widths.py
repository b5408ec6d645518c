"""Widths that deploy: what quantised formats and tensor cores take (no torch here)."""

import math
from collections.abc import Mapping

from colpipe.architectures.family import Family

BLOCK = 32  # values of a row that share a scale in llama.cpp's Q8_0, Q4_0 and others like them
USUAL = 64  # two blocks, and whole tiles of tensor cores
NARROW = 256  # channels; in models below, 64 is too long a step
ANY = 8  # the step where widths need not be aligned


def alignment(asked: int | None, narrowest: int) -> int:
    """What the widths of new shapes are multiples of: what was asked for, else 64; 8 where any width will do.

    Args:
        asked: `architecture.align`; 1 is any width, None leaves it to the models.
        narrowest: channels of the narrowest model; below 256, any width will do.
    """
    if asked is None:
        return USUAL if narrowest >= NARROW else ANY
    return max(asked, ANY)


def align(width: float, step: int) -> int:
    """The multiple of a step that is nearest to a width, and at least one step."""
    return max(1, round(width / step)) * step


def hidden_step(family: Family, heads: int, step: int) -> int:
    """What the channels of a family with a head_dim of its own are multiples of, beside so many heads."""
    if not family.whole_heads:
        return step
    return math.lcm(step, heads) if step >= BLOCK else heads


def head_step(family: Family, sizes: Mapping[str, int], step: int) -> int:
    """What the number of heads (of groups, where there are some) is a multiple of, so that the widths that follow from it
    are aligned: the channels where heads make them, otherwise the input of the attention's output projection."""
    if step < BLOCK:
        return 1
    if "head_dim" not in family.keys:
        return step // math.gcd(step, sizes["head_dim"])
    return BLOCK // math.gcd(BLOCK, sizes["query"] * sizes["head_dim"])


def proportional_units(hidden: int, sizes: Mapping[str, int]) -> int:
    """Feed-forward units beside so many channels, in proportion to those of a model of these sizes, and aligned; exact where
    the channels are a multiple of the model's."""
    units = hidden * sizes["ffn"] / sizes["hidden"]
    step = alignment(None, min(hidden, sizes["hidden"]))
    if step < BLOCK or hidden % sizes["hidden"] == 0:
        return round(units)
    aligned = align(units, step)
    return aligned - step if hidden < sizes["hidden"] and step < aligned > sizes["ffn"] else aligned


def unaligned(widths: Mapping[str, int], step: int = BLOCK) -> str:
    """The widths that are no multiples of a step, as `hidden 450, ffn 1000`; empty where all are."""
    return ", ".join(f"{name} {width}" for name, width in widths.items() if width % step)


def not_quantisable(widths: Mapping[str, int]) -> str:
    """A phrase on widths that llama.cpp's Q8_0, Q4_0 and others like them do not take; empty where they take all."""
    found = unaligned(widths)
    return f"not quantisable (Q8_0, Q4_0): {found}, not in multiples of {BLOCK}" if found else ""
