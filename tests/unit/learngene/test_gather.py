"""Gathering indices axis by axis, against plain indexing."""

import pytest
import torch

from colpipe.architectures.family import TensorSpec
from colpipe.errors import ColpipeError
from colpipe.learngene.gather import close_axes, gather, open_axes

TENSOR = TensorSpec("hidden (qkv head head_dim)", "read")
SIZES = {"hidden": 40, "qkv": 3, "head": 4, "head_dim": 2}
INDICES = [
    [0, 1, 2],  # leading ones
    [5, 6, 7],
    [*range(40), 38, 39],  # an expansion
    [*range(40), *range(40)],
    [39, 38, 0, 0, 5],
    [*range(0, 40, 2)],  # more pieces than are worth copying whole
    [7],
]


@pytest.mark.parametrize("indices", INDICES, ids=len)
def test_every_pattern_of_indices_is_plain_indexing(indices):
    opened = open_axes(torch.randn(40, 24), TENSOR, SIZES)
    taken = gather(opened, TENSOR, {"hidden": indices, "head": [3, 1]})
    assert torch.equal(taken, opened[torch.tensor(indices)][:, :, [3, 1]])


def test_opening_and_closing_are_inverse():
    stored = torch.randn(40, 24)
    opened = open_axes(stored, TENSOR, SIZES)
    assert opened.shape == (40, 3, 4, 2)
    assert opened[5, 1, 2, 1] == stored[5, 1 * 8 + 2 * 2 + 1]  # a key
    assert torch.equal(close_axes(opened, TENSOR), stored)


def test_a_leading_part_is_a_view():
    opened = open_axes(torch.randn(40, 24), TENSOR, SIZES)
    assert gather(opened, TENSOR, {"hidden": range(8), "head": [0, 1]}).data_ptr() == opened.data_ptr()


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(ColpipeError, match=r"a tensor of shape \(40, 23\) is not 'hidden \(qkv head head_dim\)' with"):
        open_axes(torch.randn(40, 23), TENSOR, SIZES)
