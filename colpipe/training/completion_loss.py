"""Loss of completions on a CPU: to the bit what trl's fused head gives, which projects every position there.

Only positions with loss are projected, because the rows of a matrix product do not depend on each other. The gradient of
the head's weight is a sum over all positions; it stays one, with zeros where there is no loss, because a product that leaves
them out would group the sum in another way. Instruction rows have loss on few positions, so this costs a tenth. Logits that
are divided are so as the stock model divides them; trl multiplies by the inverse, which may round otherwise.
"""

import torch
from torch import Tensor
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as COLUMNS

from colpipe.architectures.flops import FUSED_HEAD
from colpipe.hf.counting import count_logits
from colpipe.hf.logits import PLAIN, LogitTransform

LEAST = 16  # rows of a product: of fewer, MKL adds up in another order
BLOCK = 2**20  # slopes that are spread over all positions at a time: what a processor's cache holds


def completion_loss(
    hidden: Tensor,
    head: torch.nn.Module,
    labels: Tensor,
    predicts: Tensor,
    tokens: Tensor,
    transform: LogitTransform = PLAIN,
) -> Tensor:
    """Cross-entropy of the positions with loss, their sum divided by `tokens`.

    Args:
        hidden: last hidden states (B, T, H), float32.
        head: the output head: weight (V, H), perhaps a bias (V,).
        labels: of the next token (B, T).
        predicts: where there is loss (B, T).
        tokens: with loss, of all micro-batches of an update.
        transform: from what the head gives to logits.
    """
    rows = predicts.flatten().nonzero()[:, 0]
    hidden, right = hidden.reshape(-1, hidden.shape[-1]), labels.flatten()[rows]
    learns, (vocabulary, width) = torch.is_grad_enabled(), head.weight.shape
    count_logits(max(LEAST, len(rows)), vocabulary, width, FUSED_HEAD - 1 if learns else 1)
    count_logits(learns * len(hidden), vocabulary, width)  # the gradient of the weight
    logprobs = _LogProbs.apply(hidden, head.weight, getattr(head, "bias", None), rows, right, transform)
    # a sum over zeros, too, has its order
    spread = logprobs.new_zeros(predicts.shape).masked_scatter(predicts, logprobs)
    return -spread.sum() / tokens.clamp(min=1)


class _LogProbs(torch.autograd.Function):
    """Log-probabilities (M,) of the tokens `right` (M,) at some rows (M,) of hidden states (N, H)."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, rows, right, transform):
        extra = max(0, LEAST - len(rows))
        picked = hidden[torch.cat([rows, rows.new_zeros(extra)])]
        right = torch.cat([right, right.new_full((extra,), -1)])
        largest = picked.new_full((len(picked),), -torch.inf)
        total, logit = torch.zeros_like(largest), torch.zeros_like(largest)
        for start in range(0, len(weight), COLUMNS):
            logits = transform.apply(_head(picked, weight, bias, start))
            before, largest = largest, torch.maximum(largest, logits.amax(-1))
            here, column = _in_columns(right, start, logits.shape[1])
            logit[here] = logits[here, column]
            total.mul_((before - largest).exp_()).add_(logits.sub_(largest[:, None]).exp_().sum(-1))
        log_total = largest + total.log()
        ctx.transform = transform
        ctx.save_for_backward(hidden, weight, bias, picked, rows, right, log_total)
        return (logit - log_total)[: len(rows)]

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias, picked, rows, right, log_total = ctx.saved_tensors
        grad = torch.cat([grad, grad.new_zeros(len(picked) - len(rows))])
        by_picked, by_weight = torch.zeros_like(picked), torch.zeros_like(weight)
        by_bias = None if bias is None else torch.zeros_like(bias)
        for start in range(0, len(weight), COLUMNS):
            logits = ctx.transform.apply(_head(picked, weight, bias, start))
            derivative = ctx.transform.derivative(logits) if ctx.transform != PLAIN else None
            slope = logits.sub_(log_total[:, None]).exp_().neg_()  # label − probability
            here, column = _in_columns(right, start, slope.shape[1])
            slope[here, column] += 1
            slope.mul_(grad[:, None])
            if derivative is not None:
                slope.mul_(derivative)
            columns = slice(start, start + slope.shape[1])
            by_picked.addmm_(slope, weight[columns])
            _add_by_weight(by_weight[columns], None if by_bias is None else by_bias[columns], slope, rows, hidden)
        by_hidden = torch.zeros_like(hidden)
        by_hidden[rows] = by_picked[: len(rows)]
        return by_hidden, by_weight, by_bias, None, None, None


def _head(picked: Tensor, weight: Tensor, bias: Tensor | None, start: int) -> Tensor:
    values = picked @ weight[start : start + COLUMNS].t()
    return values if bias is None else values.add_(bias[start : start + COLUMNS])


def _in_columns(right: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Which rows have their token among these columns, and its column there."""
    here = ((right >= start) & (right < start + count)).nonzero()[:, 0]
    return here, right[here] - start


def _add_by_weight(by_weight: Tensor, by_bias: Tensor | None, slope: Tensor, rows: Tensor, hidden: Tensor) -> None:
    """Add the gradients of the weight (V, H) and bias (V,), of slopes (M, V) at some rows of (N, H)."""
    height, width = min(len(hidden), TOKEN_CHUNK_SIZE), slope.shape[1]
    if by_bias is None:  # sums of columns depend on how many there are, matrix products do not
        width = min(width, max(LEAST, BLOCK // height))
    spread = slope.new_zeros(height, width)
    for first in range(0, len(hidden), TOKEN_CHUNK_SIZE):
        states = hidden[first : first + TOKEN_CHUNK_SIZE]
        [own] = ((rows >= first) & (rows < first + TOKEN_CHUNK_SIZE)).nonzero(as_tuple=True)
        for start in range(0, slope.shape[1], width):
            columns = slice(start, start + width)
            block = slope[own, columns]
            filled = spread[: len(states), : block.shape[1]]
            filled[rows[own] - first] = block
            by_weight[columns].addmm_(filled.t(), states)
            if by_bias is not None:
                by_bias[columns] += filled.sum(0)
            filled[rows[own] - first] = 0
