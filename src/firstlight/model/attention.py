"""Self-attention, causal or to both sides, with grouped key-value heads and a query-key norm where the family has one.

Grouped-query attention: Ainslie et al. 2023 (arXiv:2305.13245); query-key norm: Dehghani et al. 2023
(arXiv:2302.05442), before the rotation. The kernel is PyTorch's `scaled_dot_product_attention`: without a mask it never
stores the [sequence, sequence] scores. On a CPU, compiled, short sequences go a faster way, and so does dropout of the
attention weights everywhere: the kernels' own random numbers depend on a generator's state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.model.cache import LayerCache
from firstlight.model.dropout import Draws, DroppedWeights, dropped_weights
from firstlight.model.norm import make_norm
from firstlight.model.rope import rotate

LONGEST_IN_BLOCKS = 1024
"""Longest sequence whose attention a compiled block on a CPU computes as plain products."""
SMALLEST_BLOCK, MOST_BLOCKS = 128, 8
"""Of the queries, where attention is computed as plain products."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool = True,
    dropout: DroppedWeights | None = None,
) -> Tensor:
    """softmax(query · keyᵀ / sqrt(head_dim)) · value, with weights dropped after the softmax where `dropout` is given.

    query: [batch, heads, queries, head_dim]; key, value: [batch, groups, keys, head_dim]. mask: [batch or 1, 1,
    queries, keys] bool, true where attention is allowed, and then it says all. Without one, every query sees every key,
    or, when causal, those up to its own place; the queries are then the last positions of the keys, and are either all
    of them or a single one.
    """
    queries, keys = query.shape[2], key.shape[2]
    assert mask is not None or queries in (1, keys), "a block of queries after cached keys needs a mask"
    if dropout is not None:
        key, value = (repeat_groups(heads, query.shape[1]) for heads in (key, value))
        return attend_in_blocks(query, key, value, mask=mask, causal=causal, dropout=dropout)
    grouped = query.shape[1] != key.shape[1]
    if grouped and mask is not None and query.is_cuda:
        # The CUDA kernel that takes a mask does not take groups; asked for both, PyTorch stores all scores.
        key, value = (repeat_groups(heads, query.shape[1]) for heads in (key, value))
        grouped = False
    causal = causal and mask is None and queries == keys
    on_cpu = query.device.type == "cpu" and torch.compiler.is_compiling()
    if causal and on_cpu and queries <= LONGEST_IN_BLOCKS:
        return attend_in_blocks(query, repeat_groups(key, query.shape[1]), repeat_groups(value, query.shape[1]))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def attend_in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_size: int | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = True,
    dropout: DroppedWeights | None = None,
) -> Tensor:
    """As `attend`, with as many heads in all three, as plain products, `block_size` queries at a time (unset: 128, or
    an eighth of them where that is more); when causal, the queries are the last positions of the keys.

    For compiled training on a CPU, where it takes half the time of `scaled_dot_product_attention` (docs/log.md): the
    compiler fuses what lies between the products, and no block reads keys that all its queries would have masked. The
    backward pass keeps the weights, half of sequence² a head when causal, so without dropout long sequences are left
    to the kernel.
    """
    queries, before = query.shape[2], key.shape[2] - query.shape[2]
    size = block_size or max(SMALLEST_BLOCK, -(-queries // MOST_BLOCKS))
    query = query * query.shape[-1] ** -0.5
    heads = []
    for start in range(0, queries, size):
        end = min(start + size, queries)
        seen = before + end if causal else key.shape[2]
        scores = (query[:, :, start:end] @ key[:, :, :seen].transpose(-1, -2)).float()
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, start:end, :seen], float("-inf"))
        elif causal:
            positions = torch.arange(seen, device=query.device)
            scores = scores.masked_fill(positions > positions[before + start :, None], float("-inf"))
        weights = scores.softmax(-1).to(value.dtype)
        if dropout is None:
            heads.append(weights @ value[:, :, :seen])
        else:
            heads.append(dropout.rows(slice(start, end))(weights) @ value[:, :, :seen] * dropout.scale)
    return torch.cat(heads, dim=2)


def repeat_groups(heads: Tensor, num_heads: int) -> Tensor:
    """Give each query head its own copy of its group: [batch, groups, …] → [batch, num_heads, …]."""
    return heads.repeat_interleave(num_heads // heads.shape[1], dim=1)


class Attention(nn.Module):
    """Projections around `attend`; parameters are named as in Hugging Face's LLaMA and Qwen3.

    From outside may be replaced `attend`, by a function of the same arguments, and `first_head`, where this process
    has only some of the heads.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.head_dim is not None and config.num_key_value_heads is not None
        family = config.family
        self.head_dim, self.causal = config.head_dim, config.causal
        self.attend, self.first_head, self.dropout = attend, 0, config.attention_dropout
        query_size, group_size = (
            heads * self.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads)
        )
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=family.biased("q_proj"))
        self.k_proj = nn.Linear(config.hidden_size, group_size, bias=family.biased("k_proj"))
        self.v_proj = nn.Linear(config.hidden_size, group_size, bias=family.biased("v_proj"))
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=family.biased("o_proj"))
        self.norm_heads = family.qk_norm == "head"
        sizes = {"none": None, "head": (self.head_dim, self.head_dim), "all": (query_size, group_size)}[family.qk_norm]
        self.q_norm = make_norm(config, sizes[0]) if sizes else None
        self.k_norm = make_norm(config, sizes[1]) if sizes else None

    def forward(
        self,
        hidden: Tensor,
        rope: Tensor | None,
        mask: Tensor | None,
        cache: LayerCache | None,
        draws: Draws | None,
    ) -> Tensor:
        """hidden: [batch, sequence, hidden_size] → the same shape. rope: table of `rope_table`."""
        split = (*hidden.shape[:2], -1, self.head_dim)
        query, key, value = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden).view(split)
        if self.norm_heads:
            query, key = query.view(split), key.view(split)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = query.view(split).transpose(1, 2), key.view(split).transpose(1, 2), value.transpose(1, 2)
        if rope is not None:
            query, key = rotate(query, rope), rotate(key, rope)
        if cache is not None:
            key, value = cache.append(key, value)
        dropout = dropped_weights(draws, self.first_head, query.shape[1], self.dropout)
        heads = self.attend(query, key, value, mask, self.causal, dropout)
        return self.o_proj(heads.transpose(1, 2).flatten(2))
