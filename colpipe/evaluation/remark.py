"""What a log says of a model that a uniform guess is better than (no torch here)."""

from colpipe.evaluation.uniform import is_worse, uniform_guess

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def worse_than_guessing(loss: float, vocabulary: int) -> str:
    """That a model of this loss, nats per token, is worse than a uniform guess, in words; empty where it is not."""
    return f"worse than guessing: {uniform_guess(vocabulary)}" if is_worse(loss, vocabulary) else ""
