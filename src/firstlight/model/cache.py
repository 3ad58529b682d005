"""Keys and values of the tokens already read, so that generation computes each position once.

Room for `max_length` positions is reserved at the first write, in the shape and type that the layer produces; a step
then writes in place and attends to a view.
"""

from __future__ import annotations

from torch import Tensor


class LayerCache:
    """Keys and values of one layer, each [batch, key-value heads, max_length, head_dim]."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add [batch, heads, new, head_dim] and return everything so far, [batch, heads, length, head_dim]."""
        if self.length == 0:
            batch, heads, _, width = keys.shape
            self.keys = keys.new_empty(batch, heads, self.max_length, width)
            self.values = values.new_empty(batch, heads, self.max_length, width)
        end = self.length + keys.shape[2]
        assert end <= self.max_length, f"the cache holds {self.max_length} positions, {end} are due"
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KeyValueCache:
    """One `LayerCache` per layer of a model."""

    def __init__(self, num_layers: int, max_length: int) -> None:
        self.layers = [LayerCache(max_length) for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """Positions read so far."""
        return self.layers[0].length
