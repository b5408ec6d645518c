"""How the rows of projections are laid out, seen from which rows move which heads, or which units of a feed-forward part.

With two tokens, a value row moves what its heads read out at the first token; a key row of the first token moves what they
read out at the second, by the scores; a query row of the second token moves that of its own head. So every row's part and
heads follow from gradients, whatever tensor holds it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from colpipe.tools.family_table.models import ids

PARTS = "qkv"
NOTHING = 1e-10  # of the largest gradient; in plain attention, what is masked has none at all


def row_parts(
    model, readers: Sequence[str], writer: str, heads: int, instead: Mapping[str, str]
) -> dict[str, list[tuple[str, frozenset[int]]]]:
    """Reader → (part, heads) of each of its rows; an empty part where a row moves nothing.

    Args:
        readers: modules that read the stream for the attention.
        writer: the module that reads what the heads put out, one after the other.
        instead: reader → a norm of the same shape over what it puts out; with one over all heads, every row moves all.
    """
    outputs, read = _cut({name: instead.get(name, name) for name in readers}, writer, model)
    per_head = read[0].unflatten(-1, (heads, -1)).square().sum(-1)  # (2 tokens, heads)
    moved = {(token, head): _moves(per_head[token, head], outputs) for token in range(2) for head in range(heads)}
    found = {}
    for name in readers:
        at_first = [moved[0, head][name][0].tolist() for head in range(heads)]
        by_first = [moved[1, head][name][0].tolist() for head in range(heads)]
        by_second = [moved[1, head][name][1].tolist() for head in range(heads)]
        rows = range(outputs[name].shape[-1])
        found[name] = [_part(row, at_first, by_first, by_second) for row in rows]
    return found


def row_units(model, reader: str, writer: str) -> list[set[int]]:
    """Rows of a feed-forward part's reader that move its first unit, and its second."""
    outputs, read = _cut({reader: reader}, writer, model)
    moved = (_moves(read[0, 0, unit], outputs)[reader][0].tolist() for unit in range(2))
    return [{row for row, moves in enumerate(rows) if moves} for rows in moved]


def _cut(modules: Mapping[str, str], writer: str, model) -> tuple[dict[str, Tensor], Tensor]:
    """Name → what a module puts out for two tokens, small, to be differentiated by; and what the writer reads of all."""
    outputs, read = {}, []

    def leaf(name: str):
        def hook(module, given, output):
            outputs[name] = (output.detach() / 10).requires_grad_()  # scores that leave every key its share
            return outputs[name]

        return hook

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in modules.items():
            hooks.enter_context(model.get_submodule(module).register_forward_hook(leaf(name)))
        before = model.get_submodule(writer).register_forward_pre_hook(lambda module, given: read.append(given[0]))
        hooks.enter_context(before)
        model(input_ids=ids(1, 2), use_cache=False)
    return outputs, read[-1]


def _moves(value: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name → whether a value moves with each entry of an output (tokens, rows)."""
    gradients = torch.autograd.grad(value, list(outputs.values()), retain_graph=True, allow_unused=True)
    largest = max(gradient.abs().max() for gradient in gradients if gradient is not None)
    return {
        name: torch.zeros(output.shape[1:], dtype=torch.bool)
        if gradient is None
        else gradient[0].abs() > NOTHING * largest
        for (name, output), gradient in zip(outputs.items(), gradients, strict=True)
    }


def _part(row: int, at_first: Sequence, by_first: Sequence, by_second: Sequence) -> tuple[str, frozenset[int]]:
    for part, moved in (("v", at_first), ("k", by_first), ("q", by_second)):
        if heads := frozenset(head for head, rows in enumerate(moved) if rows[row]):
            return part, heads
    return "", frozenset()


def blocks(rows: Sequence[tuple[str, frozenset[int]]], head_dim: int) -> list[tuple[str, frozenset[int]]] | None:
    """(part, heads) of each run of head_dim rows; None where they do not come in such runs.

    A row that moves nothing, such as a key of the first token where all its scores are equal, is of the part around it.
    """
    found = []
    for start in range(0, len(rows), head_dim):
        kinds = {row for row in rows[start : start + head_dim] if row[0]}
        if len(kinds) != 1:
            return None
        found.append(kinds.pop())
    return found


def layout(found: Sequence[tuple[str, frozenset[int]]], heads: int, groups: int, grouped: bool) -> list[str] | None:
    """Einops patterns of the parts that a projection's blocks are, one below the other; None where there are none.

    Args:
        grouped: whether the family has an axis for key/value heads.
    """
    if not grouped:
        single = [(part, frozenset([head])) for part in PARTS for head in range(heads)]
        if list(found) == single:
            return ["(qkv head head_dim)"]
        if list(found) == [(part, frozenset([head])) for head in range(heads) for part in PARTS]:
            return ["(head qkv head_dim)"]
    patterns, rest = [], list(found)
    while rest:
        part = rest[0][0]
        count = heads if part == "q" else groups
        if (pattern := _pattern(part, [own for _, own in rest[:count]], heads, groups, grouped)) is None:
            return None
        if {each for each, _ in rest[:count]} != {part}:
            return None
        patterns.append(pattern)
        rest = rest[count:]
    return patterns


def _pattern(part: str, owners: Sequence[frozenset[int]], heads: int, groups: int, grouped: bool) -> str | None:
    """Of queries, keys or values, whose heads are stored in this order."""
    query = heads // groups
    if part == "q":
        expected = [frozenset([head]) for head in range(heads)]
        return ("(group query head_dim)" if grouped else "(head head_dim)") if list(owners) == expected else None
    expected = [frozenset(range(group * query, group * query + query)) for group in range(groups)]
    return ("(group head_dim)" if grouped else "(head head_dim)") if list(owners) == expected else None
