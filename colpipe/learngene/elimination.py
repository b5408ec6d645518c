"""In which order the inputs of a projection can be spared, when the others are refitted each time (Optimal Brain Surgeon).

Of a projection W that reads H, an input q costs w_q² / (HᵀH)⁻¹_qq when it is taken away and what is left is fitted to what
the whole wrote. The cheapest go first, and the inverse and W are then those of what is left. A fitted cut (`fit.py`) refits
the same projection.
"""

import torch
from torch import Tensor

ROUNDS = 48  # in which inputs are taken away; one at a time would take as many rounds as there are
RIDGE = 0.01  # of the mean of the diagonal: inputs that move together have no inverse


def kept_longest(gram: Tensor, weight: Tensor) -> list[int]:
    """All inputs, those that are taken away last first.

    Args:
        gram: (inside, inside) HᵀH of what the projection reads.
        weight: (inside, hidden) of the projection.
    """
    gram, weight = gram.double(), weight.double()
    silent = gram.diagonal() == 0  # cost nothing; the ridge would have them cost a little
    gram = gram + (RIDGE * gram.diagonal().mean()).clamp_min(1e-30) * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    alive, gone = torch.arange(len(gram)), []
    step = -(-len(alive) // ROUNDS)
    while len(alive):
        costs = (weight.square().sum(1) / inverse.diagonal()).masked_fill(silent[alive], 0)
        order = costs.argsort(stable=True)
        away, there = order[:step], order[step:].sort().values
        gone += alive[away].tolist()
        change = torch.linalg.solve(inverse[away][:, away], inverse[away][:, there])  # (away, there)
        weight = weight[there] - change.T @ weight[away]
        inverse = inverse[there][:, there] - inverse[there][:, away] @ change
        alive = alive[there]
    return gone[::-1]
