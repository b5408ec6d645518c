"""The fit of a projection whose output goes through an RMSNorm before it is added to the stream (Gemma 3, OLMo 2).

What a token adds to the stream is g ⊙ W h / s with s the root mean square of W h: not linear in W. Two linear fits are made
one after the other: that of W, with s as it was before, and then that of the gain g, channel by channel, on what the norm
makes of the new W h; again, with the new s, as long as it comes closer. Where the first two come no closer than what was
there, nothing is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from colpipe.learngene.least_squares import Normal
from colpipe.learngene.streams import RowFile, Streams, token_weights
from colpipe.learngene.writers import Writer

ROUNDS = 4
CLOSER = 0.999  # of the squared error that a round has to leave less than
FAINT = 1e-3  # of the gains' root mean square: channels below it hardly come through, and their weights stay


@dataclass
class GainSums:
    """Sums over tokens, weighted, of one channel each: (hidden,), in float64.

    Attributes:
        cross, square: of n c and n², with n what the norm makes of the new output, and c what should be added.
        aimed: of c².
    """

    cross: Tensor
    square: Tensor
    aimed: Tensor

    def add(self, normed: Tensor, aimed: Tensor, weight: Tensor) -> None:
        """Some tokens more: both (tokens, hidden), and their weights (tokens,)."""
        self.cross += (weight @ (normed * aimed)).cpu().double()
        self.square += (weight @ normed.square()).cpu().double()
        self.aimed += (weight @ aimed.square()).cpu().double()

    def gain(self, before: Tensor, ridge: float) -> Tensor:
        """The gain that comes closest, held back towards the one before by a share of the mean square."""
        held = ridge * self.square.mean()
        return (self.cross + held * before) / (self.square + held).clamp_min(1e-300)

    def error(self, gain: Tensor) -> float:
        return (self.aimed - 2 * gain * self.cross + gain.square() * self.square).sum().item()


def refit_behind_norm(
    streams: Streams,
    stream: RowFile,
    heard: RowFile,
    aim: RowFile,
    channels: Tensor,
    writer: Writer,
    normal: Normal,
    ridge: float,
    dtype: torch.dtype,
) -> dict:
    """Fit a projection and the gain behind it, and bring the stream up to date.

    Args:
        stream: of the cut, with what the projection writes now; rewritten.
        heard: what the projection reads.
        aim: the stream of the source, of whose channels these are taken.
        normal: the sums for the projection, of what it reads as `Writer.heard` has it.

    Returns:
        An entry for the details: relative errors before and after, and the ridge where it was raised.
    """
    norm, device = writer.norm, streams.device
    assert norm is not None
    weight, gain = writer.module.weight, norm.gain
    first_weight, first_gain = weight.clone(), gain

    def output(matrix: Tensor, inputs: Tensor) -> Tensor:
        with streams.computing():
            return torch.nn.functional.linear(inputs, matrix, writer.module.bias).float()

    def rows() -> Iterator[tuple[int, int, Tensor, Tensor, Tensor, Tensor]]:
        """(first row, end, what is read, the stream aimed at, what was added before, what should be added) of each batch."""
        for first, end, _ in streams.spans():
            inputs, target = heard.read(first, end).to(device), aim.read(first, end)[:, channels].to(device)
            written = output(first_weight, inputs)
            added = first_gain * written / norm.size(written)
            yield first, end, inputs, target, added, target - stream.read(first, end).to(device) + added

    size, error, raised = normal.size, normal.error, ridge
    before = (error / size) ** 0.5 if size else 0.0
    for number in range(ROUNDS):
        if number:
            normal = Normal(writer.inside, len(channels))
            for _, _, inputs, target, _, aimed in rows():
                written = output(weight, inputs)
                missing = aimed - gain * written / norm.size(written)
                normal.add(writer.heard(inputs), missing, target, token_weights(target))
        kept = weight.clone(), norm.module.weight.clone()
        found = normal.solve(ridge, affine=False)
        clear = gain.abs() > FAINT * gain.square().mean().sqrt()
        writer.add((found.change.to(device) / torch.where(clear, gain, torch.inf)[:, None]).cpu(), dtype)
        sums = GainSums(*torch.zeros(3, len(channels), dtype=torch.float64))
        for _, _, inputs, target, _, aimed in rows():
            written = output(weight, inputs)
            sums.add(written / norm.size(written), aimed, token_weights(target))
        new = sums.gain(gain.cpu().double(), ridge)
        if not sums.error(new) < CLOSER * error:
            weight.copy_(kept[0])
            norm.module.weight.copy_(kept[1])
            break
        error, raised = sums.error(new), max(raised, found.ridge)
        norm.set_gain(new.to(device, gain.dtype), dtype)
        gain = norm.gain
    for first, end, inputs, _, added, _ in rows():
        written = output(weight, inputs)
        stream.write(first, stream.read(first, end).to(device) - added + gain * written / norm.size(written))
    entry = {"before": round(before, 6), "after": round((max(error, 0.0) / size) ** 0.5 if size else 0.0, 6)}
    return entry | ({"ridge": raised} if raised != ridge else {})
