"""Context parallelism: the ranks of a group share each sequence, and gather keys and values for attention.

A causal sequence gives its last tokens the most work, so it is cut into 2n chunks and rank r takes chunks r and
2n - 1 - r: every rank then computes the same number of scores (Llama Team 2024, arXiv:2407.21783, section 3.3.2, where
keys and values are gathered too). With few key-value heads that moves less than passing activations around would.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.model.attention import attend_in_blocks, repeat_groups
from firstlight.model.dropout import DroppedWeights
from firstlight.parallel.blocks import blocks
from firstlight.parallel.collectives import all_gather_autograd


def apply_context_parallel(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Let every attention of `model` gather the keys and values of the whole sequence over `group`."""
    attend = ContextParallelAttention(group)
    for block in blocks(model):
        block.self_attn.attend = attend


def local_positions(sequence_length: int, rank: int, size: int, device: torch.device | None = None) -> Tensor:
    """Columns of a sequence that context rank `rank` of `size` holds: [sequence_length / size] int64, rising."""
    assert sequence_length % (2 * size) == 0
    chunks = torch.arange(sequence_length, device=device).chunk(2 * size)
    return torch.cat((chunks[rank], chunks[2 * size - 1 - rank]))


class ContextParallelAttention:
    """Takes the place of `attend`: queries, keys and values of this rank's columns; masks over the keys of all."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool = True,
        dropout: DroppedWeights | None = None,
    ) -> Tensor:
        """query: [batch, heads, columns, head_dim], key, value: [batch, groups, columns, head_dim] → as query.

        mask: [batch or 1, 1, columns, whole sequence] bool; without one, attention is causal or sees everything.
        dropout: that of this rank's columns.
        """
        key, value = self._gather(torch.stack((key, value))).unbind(0)
        key, value = (repeat_groups(heads, query.shape[1]) for heads in (key, value))
        if not causal:
            if dropout is not None:
                return attend_in_blocks(query, key, value, mask=mask, causal=False, dropout=dropout)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        size = query.shape[2] // 2
        parts = []
        for half, number in enumerate((self.rank, 2 * self.size - 1 - self.rank)):
            rows, end = slice(half * size, (half + 1) * size), (number + 1) * size
            heads = query[:, :, rows], key[:, :, :end], value[:, :, :end]
            seen = None if mask is None else mask[:, :, rows, :end]
            if dropout is not None:
                parts.append(attend_in_blocks(*heads, mask=seen, dropout=dropout.rows(rows)))
                continue
            seen = lower_right(size, end, query.device) if seen is None else seen
            parts.append(F.scaled_dot_product_attention(*heads, attn_mask=seen))
        return torch.cat(parts, dim=2)

    def _gather(self, mine: Tensor) -> Tensor:
        """[2, batch, groups, columns, head_dim] of each rank → those of the whole sequence, in its order."""
        chunks = all_gather_autograd(mine, 3, self.group).chunk(2 * self.size, 3)
        lower, upper = chunks[::2], chunks[1::2]
        return torch.cat((*lower, *reversed(upper)), dim=3)


def lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """Mask of causal attention whose queries are the last of the keys: [queries, keys] bool, true where allowed."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
