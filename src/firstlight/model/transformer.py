"""The decoder: embeddings, pre-norm blocks, a last norm. Vaswani et al. 2017 with the norm moved before each sublayer
(Xiong et al. 2020, arXiv:2002.04745). Blocks take tensors only, so that each can be compiled, recomputed or sharded
from outside by walking `layers`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from firstlight.config import ModelConfig
from firstlight.model.attention import Attention
from firstlight.model.cache import KeyValueCache, LayerCache
from firstlight.model.families import FAMILIES
from firstlight.model.feed_forward import FeedForward
from firstlight.model.masks import attention_mask, positions_in_documents
from firstlight.model.norm import make_norm, under_autocast
from firstlight.model.rope import rope_table
from firstlight.support.errors import ConfigError


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = FeedForward(config)

    def forward(
        self, hidden: Tensor, rope: Tensor | None, mask: Tensor | None, cache: LayerCache | None = None
    ) -> Tensor:
        """hidden: [batch, sequence, hidden_size] → the same shape and type."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rope, mask, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Transformer(nn.Module):
    """Token ids to the last hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None and config.max_position_embeddings is not None
        self.config = config
        learned = FAMILIES[config.architecture].positions == "learned"
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = make_norm(config)

    def forward(
        self,
        input_ids: Tensor,
        document_ids: Tensor | None = None,
        padding_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """input_ids: [batch, sequence] int64 → [batch, sequence, hidden_size], after the last norm.

        document_ids: [batch, sequence]; tokens attend within runs of equal numbers, and learned positions start anew
        in each. padding_mask: [batch, sequence], 0 at padding, which nothing else attends to. cache: keys and values
        of the positions before `input_ids`; goes with neither of the two. positions: [columns] int64, where input_ids
        holds only these columns of longer rows; document_ids are then those of the whole rows. Raises ConfigError when
        the positions exceed max_position_embeddings.
        """
        assert cache is None or (document_ids is None and padding_mask is None and positions is None)
        start = cache.length if cache is not None else 0
        length = input_ids.shape[1]
        if positions is None:
            self._check_length(start + length)
            positions = torch.arange(start, start + length, device=input_ids.device)
        mask = None
        if document_ids is not None or padding_mask is not None or (start and length > 1):
            keys = start + length if document_ids is None else document_ids.shape[1]
            mask = attention_mask(positions, keys, document_ids, padding_mask)

        hidden = self.embed_tokens(input_ids)
        rope = None
        if FAMILIES[self.config.architecture].positions == "rotary":
            assert self.config.head_dim is not None
            rope = rope_table(positions, self.config.head_dim, self.config.rope_theta)
        elif self.embed_positions is not None:
            within = positions[None] if document_ids is None else positions_in_documents(document_ids)[:, positions]
            hidden = hidden + self.embed_positions(within)
        if under_autocast(hidden):
            hidden = hidden.float()  # the residual stream, whatever the table is stored in
        for index, layer in enumerate(self.layers):
            if cache is None:
                hidden = layer(hidden, rope, mask)
            else:
                hidden = layer(hidden, rope, mask, cache.layers[index])
        return self.norm(hidden)

    def _check_length(self, length: int) -> None:
        limit = self.config.max_position_embeddings
        assert limit is not None
        if length > limit:
            raise ConfigError(
                f"a sequence of {length} tokens is longer than the model's max_position_embeddings {limit}; "
                f"shorten the sequence to at most {limit} tokens, or build the model with a larger value."
            )
