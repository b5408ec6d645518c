"""What a model that has learnt nothing loses on text: the mark that every loss is read against (no torch here)."""

import math

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
ROUNDING = 0.005  # nats: of a loss with two decimals; that of a model whose logits are all equal is off by less


def uniform_loss(vocabulary: int) -> float:
    """Loss of a guess that holds every token for equally probable, nats per token: ln(vocabulary)."""
    return math.log(vocabulary)


def uniform_guess(vocabulary: int) -> str:
    """That loss in words, to stand once beside losses."""
    return f"a uniform guess has {uniform_loss(vocabulary):.2f} (ln {vocabulary:,})"


def is_broken(loss: float, vocabulary: int) -> bool:
    """Whether a model of this loss, nats per token, is worse than a uniform guess, by more than rounding is."""
    return loss > uniform_loss(vocabulary) + ROUNDING


def broken(loss: float, vocabulary: int) -> str:
    """Why a model of this loss is broken: it is worse than a uniform guess. Empty where it is not."""
    return f"{uniform_guess(vocabulary)}: the model is worse, it is broken" if is_broken(loss, vocabulary) else ""


def within(loss: float, low: float, high: float) -> bool:
    """Whether a loss has its place on an axis: what lies beyond is said in words, or the scale would be lost for it."""
    return low <= loss <= high
