"""Keys and values of completions that are sampled: in memory that is there from the start, or growing with each token.

transformers' `StaticCache` has attention read all places of the memory, those that no token has reached masked, and tells
its length as a tensor of the device, which counting FLOPs would have to wait for. Here attention reads a view of the places
that are filled: it computes what it does with a cache that grows, without a copy of all keys and values for each token.
"""

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


def key_value_cache(model: PreTrainedModel, length: int, preallocated: bool | None = None) -> DynamicCache:
    """An empty cache for rows of up to so many tokens.

    Layers that look through a window keep no more than it, and always grow.

    Args:
        preallocated: take memory for all tokens at once; None: on an accelerator.
    """
    cache = DynamicCache(config=model.config)
    if model.device.type != "cpu" if preallocated is None else preallocated:
        cache.layers = [PreallocatedLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class PreallocatedLayer(DynamicLayer):
    """Keys and values (B, heads, T, head size) of a layer, views of memory for `length` tokens that is taken when the first
    come."""

    is_initialized: bool
    keys: Tensor
    values: Tensor

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        come = key_states, value_states
        if not self.is_initialized:
            self.memory = [new.new_empty(*new.shape[:2], self.length, new.shape[3]) for new in come]
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._show(len(key_states), 0)
        rows, start = len(key_states), self.get_seq_length()
        end = start + key_states.shape[-2]
        for memory, new in zip(self.memory, come, strict=True):
            memory[:rows, :, start:end] = new
        self._show(rows, end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, which move to the front of the memory."""
        end = self.get_seq_length()
        for memory, filled in zip(self.memory, (self.keys, self.values), strict=True):
            memory[: len(indices), :, :end] = filled[indices]
        self._show(len(indices), end)

    def _show(self, rows: int, end: int) -> None:
        self.keys, self.values = (memory[:rows, :, :end] for memory in self.memory)
