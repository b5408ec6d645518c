"""What a model that has learnt nothing loses on text: the mark that every loss is read against (no torch here)."""

import math

ROUNDING = 0.005  # nats: of a loss with two decimals; that of a model whose logits are all equal is off by less


def uniform_loss(vocabulary: int) -> float:
    """Loss of a guess that holds every token for equally probable, nats per token: ln(vocabulary)."""
    return math.log(vocabulary)


def uniform_guess(vocabulary: int) -> str:
    """That loss in words, to stand once beside losses."""
    return f"a uniform guess has {uniform_loss(vocabulary):.2f} (ln {vocabulary:,})"


def is_worse(loss: float, vocabulary: int) -> bool:
    """Whether a model of this loss, nats per token, is worse than a uniform guess, by more than rounding is."""
    return loss > uniform_loss(vocabulary) + ROUNDING


def is_broken(loss: float, vocabulary: int, ancestor: str, tokens: float | None) -> bool:
    """Whether a model of a study is broken: it is worse than a uniform guess, though it has something to be better by.

    Args:
        ancestor: empty for fetched models and for random DesNets.
        tokens: of its recovery; None of what is no DesNet. A random one has learnt nothing at 0.
    """
    return is_worse(loss, vocabulary) and (bool(ancestor) or tokens != 0)


def within(loss: float, low: float, high: float) -> bool:
    """Whether a loss has its place on an axis: what lies beyond is said in words, or the scale would be lost for it."""
    return low <= loss <= high
