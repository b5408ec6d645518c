"""A cache in memory that is there from the start holds what one that grows does."""

from types import SimpleNamespace

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from colpipe.training.kv_cache import PreallocatedLayer, key_value_cache
from tests.unit.hf.stock import stock_model


def test_it_holds_what_one_that_grows_does_in_the_same_memory():
    grown, preallocated = DynamicLayer(), PreallocatedLayer(9)
    places = set()
    for step, rows in enumerate(([0, 1, 2, 3, 4], [0, 2, 3], [1, 2], [0, 1])):
        count = 5 if not step else grown.keys.shape[0]
        new = torch.randn(2, count, 3, 4 if not step else 1, 8).unbind()
        for one, other in zip(grown.update(*new), preallocated.update(*new), strict=True):
            assert torch.equal(one, other)
        grown.batch_select_indices(torch.tensor(rows))
        preallocated.batch_select_indices(torch.tensor(rows))
        assert torch.equal(grown.values, preallocated.values)
        assert grown.get_seq_length() == preallocated.get_seq_length() == 4 + step
        assert grown.get_mask_sizes(1) == preallocated.get_mask_sizes(1)
        places.add((preallocated.keys.data_ptr(), preallocated.values.data_ptr()))
    assert len(places) == 1 and len(preallocated.keys) == 2


def test_more_tokens_than_there_is_memory_for_are_refused():
    layer = PreallocatedLayer(2)
    with pytest.raises(RuntimeError, match="size"):
        layer.update(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))


@pytest.mark.parametrize("device, preallocated", [("cpu", False), ("cuda", True)])
def test_accelerators_take_memory_at_once(device, preallocated):
    """But for layers that look through a window."""
    model = SimpleNamespace(config=stock_model("gemma2").config, device=torch.device(device))
    kinds = [type(layer).__name__ for layer in key_value_cache(model, 9).layers]
    full = "PreallocatedLayer" if preallocated else "DynamicLayer"
    assert kinds == ["DynamicSlidingWindowLayer", full, "DynamicSlidingWindowLayer"]
