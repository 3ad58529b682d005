"""Boolean attention masks (true: may attend) for what the kernel cannot say by itself: windows, documents, padding.

Training on packed sequences needs none of this unless attention is local or kept within documents; the latter mask is
block-diagonal, and a token sees exactly what it would see if its document stood alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(
    query_positions: Tensor,
    key_length: int,
    *,
    causal: bool = True,
    window: int = 0,
    document_ids: Tensor | None = None,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """Mask [batch or 1, 1, queries, keys] bool; keys are at positions 0 … key_length - 1.

    query_positions: [queries] int64. causal: no key after its query. window: of a causal mask, the last so many
    positions up to the query's own; else those at most window // 2 away; 0: all. document_ids: [batch, keys], equal
    numbers attend to each other. padding_mask: [batch, keys], 0 where a key is padding. Every token may attend to
    itself, padding too, so that no row is empty.
    """
    distance = query_positions[:, None] - torch.arange(key_length, device=query_positions.device)
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window:
        mask = mask & (distance < window if causal else distance.abs() <= window // 2)
    mask = mask[None, None]
    if document_ids is not None:
        mask = mask & (document_ids[:, query_positions][:, None, :, None] == document_ids[:, None, None, :])
    if padding_mask is not None:
        mask = mask & (padding_mask != 0)[:, None, None, :] | (distance == 0)
    return mask


def positions_in_documents(document_ids: Tensor) -> Tensor:
    """Position of each token counted from the start of its document: [batch, sequence] int64."""
    positions = torch.arange(document_ids.shape[1], device=document_ids.device).expand(document_ids.shape)
    starts = torch.ones_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return positions - (positions * starts).cummax(dim=1).values
