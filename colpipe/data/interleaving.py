"""Which documents a mixture of corpora takes of each, and in which order (no torch here).

Shares are shares of tokens. Documents are whole, and none is there twice.
"""

from collections.abc import Mapping

import numpy as np


def largest_mixture(sizes: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """Size of the largest mixture that has these shares, in what the parts are counted in, tokens or rows: what the scarcest
    of them allows."""
    return min(sizes[name] / shares[name] for name in sizes)


def evenly_spread(lengths: np.ndarray, tokens: float) -> np.ndarray:
    """Indices (K,) of documents that are evenly spread over a corpus and have about so many tokens together.

    They miss `tokens` by less than half of the longest document.

    Args:
        lengths: (D,) of the documents, tokens.
        tokens: not more than all of them have, by more than rounding.
    """
    total = int(lengths.sum())
    if tokens >= total - 0.5:
        return np.arange(len(lengths))
    wanted = (np.cumsum(lengths) * (tokens / total)).tolist()
    chosen, used = [], 0
    for index, (length, due) in enumerate(zip(lengths.tolist(), wanted, strict=True)):
        if due - used >= length / 2:
            chosen.append(index)
            used += length
    return np.array(chosen, np.int64)


def interleaved(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """An order of all documents of several parts in which each part is evenly spread, by tokens.

    Args:
        parts: (K,) lengths of the documents of each part, tokens, in their order.

    Returns:
        (N,) part and (N,) index in the part of each document.
    """
    middles = [(np.cumsum(lengths) - lengths / 2) / max(1, lengths.sum()) for lengths in parts]
    order = np.argsort(np.concatenate(middles), kind="stable")
    part: np.ndarray = np.repeat(np.arange(len(parts)), [len(lengths) for lengths in parts])
    index = np.concatenate([np.arange(len(lengths)) for lengths in parts])
    return part[order], index[order]


def spread_order(count: int) -> np.ndarray:
    """An order of 0 … count − 1 of which every beginning is evenly spread (van der Corput): by the reversed bits."""
    bits = max(1, (count - 1).bit_length())
    numbers = np.arange(2**bits)
    order = np.zeros_like(numbers)
    for bit in range(bits):
        order |= (numbers >> bit & 1) << (bits - 1 - bit)
    return order[order < count]
