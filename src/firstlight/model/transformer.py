"""Token ids to hidden states: embeddings, blocks, a last norm where the family has one. Vaswani et al. 2017; the norm
lies where the family puts it (before a sublayer: Xiong et al. 2020, arXiv:2002.04745). Blocks take tensors only, so
that each can be compiled, recomputed or sharded from outside by walking `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from firstlight.config import ModelConfig
from firstlight.model.attention import Attention
from firstlight.model.cache import KeyValueCache, LayerCache
from firstlight.model.dropout import ATTENTION_OUTPUT, EMBEDDING, FEED_FORWARD, Draws, draws_of_blocks, drop_hidden
from firstlight.model.feed_forward import FeedForward
from firstlight.model.masks import attention_mask, positions_in_documents
from firstlight.model.norm import make_norm, matmul_dtype, under_autocast
from firstlight.model.rope import rope_table
from firstlight.support.errors import ConfigError


class Columns(NamedTuple):
    """The part of longer rows that a model is given, where ranks share each sequence."""

    positions: Tensor
    """Their places in the whole rows: [columns] int64."""
    row_length: int
    """Columns of the whole rows."""


class Block(nn.Module):
    """Attention and a feed-forward layer, each with its norm and its residual connection.

    `input_layernorm` is the norm of attention and `post_attention_layernorm` that of the feed-forward layer, wherever
    the family puts them.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_place, self.dropout = config.family.norm_place, config.hidden_dropout
        stream = self.norm_place != "pre"
        first_norm = layer > 0 or config.family.first_norm
        self.input_layernorm = make_norm(config, stream=stream) if first_norm else nn.Identity()
        self.self_attn = Attention(config)
        self.post_attention_layernorm = make_norm(config, stream=stream)
        self.mlp = FeedForward(config)

    def forward(
        self,
        hidden: Tensor,
        rope: Tensor | None,
        mask: Tensor | None,
        cache: LayerCache | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """hidden: [batch, sequence, hidden_size] → the same shape and type. draws: for dropout; None: without."""

        def attention(inputs: Tensor) -> Tensor:
            return self.self_attn(inputs, rope, mask, cache, draws)

        hidden = self._add(hidden, self.input_layernorm, attention, draws, ATTENTION_OUTPUT)
        return self._add(hidden, self.post_attention_layernorm, self.mlp, draws, FEED_FORWARD)

    def _add(
        self,
        hidden: Tensor,
        norm: nn.Module,
        sublayer: Callable[[Tensor], Tensor],
        draws: Draws | None,
        place: int,
    ) -> Tensor:
        output = sublayer(norm(hidden) if self.norm_place == "pre" else hidden.to(matmul_dtype(hidden)))
        if self.norm_place == "reordered":
            output = norm(output)
        hidden = hidden + drop_hidden(output, draws, place, self.dropout)
        return norm(hidden) if self.norm_place == "post" else hidden


class Transformer(nn.Module):
    """Token ids to the last hidden states.

    From outside may be replaced `own_places`: positions of the columns → those of the hidden states that lie here,
    where ranks share the columns between attention and feed-forward layers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None and config.max_position_embeddings is not None
        self.config, family, width = config, config.family, config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        learned = family.positions == "learned"
        self.embed_positions = nn.Embedding(config.max_position_embeddings, width) if learned else None
        self.embed_types = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.embed_norm = make_norm(config, stream=True) if family.embedding_norm else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(config) if family.last_norm else None
        self.embed_dropout = config.hidden_dropout
        self.own_places: Callable[[Tensor], Tensor] = lambda positions: positions

    def forward(
        self,
        input_ids: Tensor,
        document_ids: Tensor | None = None,
        padding_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        columns: Columns | None = None,
        token_types: Tensor | None = None,
        dropout_keys: Tensor | None = None,
    ) -> Tensor:
        """input_ids: [batch, sequence] int64 → [batch, sequence, hidden_size], after the last norm.

        document_ids: [batch, sequence]; tokens attend within runs of equal numbers, and learned positions start anew
        in each. padding_mask: [batch, sequence], 0 at padding, which nothing else attends to. cache: keys and values
        of the positions before `input_ids`; goes with neither of the two. columns: where input_ids holds only these
        columns of longer rows; document_ids are then those of the whole rows. token_types: [batch, sequence], row of
        each token in the table of types; 0 unless given. dropout_keys: [batch] int64, what all dropout of a row is
        drawn from; None: no dropout. Raises ConfigError when the positions exceed max_position_embeddings.
        """
        assert cache is None or (document_ids is None and padding_mask is None and columns is None)
        start = cache.length if cache is not None else 0
        length = input_ids.shape[1]
        if columns is None:
            self._check_length(start + length)
            columns = Columns(torch.arange(start, start + length, device=input_ids.device), start + length)
        hidden = self.embed_tokens(input_ids)
        if self.embed_positions is not None:
            positions = columns.positions[None]
            if document_ids is not None:
                positions = positions_in_documents(document_ids)[:, columns.positions]
            hidden = hidden + self.embed_positions(positions)
        if self.embed_types is not None:
            hidden = hidden + self.embed_types(torch.zeros_like(input_ids) if token_types is None else token_types)
        if under_autocast(hidden):
            hidden = hidden.float()  # the residual stream, whatever the table is stored in
        if self.embed_norm is not None:
            hidden = self.embed_norm(hidden)
        first_draws, *draws = self._draws(dropout_keys, columns)
        hidden = drop_hidden(hidden, first_draws, EMBEDDING, self.embed_dropout)
        views = {
            everywhere: self._view(columns, everywhere, start, length, document_ids, padding_mask)
            for everywhere in {self.config.is_global(layer) for layer in range(len(self.layers))}
        }
        for index, layer in enumerate(self.layers):
            rope, mask = views[self.config.is_global(index)]
            if draws[index] is not None:
                hidden = layer(hidden, rope, mask, None, draws[index])
            elif cache is None:
                hidden = layer(hidden, rope, mask)
            else:
                hidden = layer(hidden, rope, mask, cache.layers[index])
        return hidden if self.norm is None else self.norm(hidden)

    def _draws(self, keys: Tensor | None, columns: Columns) -> list[Draws | None]:
        """What the embedding and each block draw from; None: nothing is dropped."""
        count = len(self.layers) + 1
        if keys is None or not self.config.has_dropout:
            return [None] * count
        return [*draws_of_blocks(keys, count, self.own_places(columns.positions), columns.positions)]

    def _view(
        self,
        columns: Columns,
        everywhere: bool,
        start: int,
        length: int,
        document_ids: Tensor | None,
        padding_mask: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Rotations and mask of the blocks that attend everywhere, or of those that attend locally; None: no need."""
        config = self.config
        rope = None
        if config.family.positions == "rotary":
            assert config.head_dim is not None and config.rope_theta is not None
            theta = config.rope_theta if everywhere else config.local_rope_theta or config.rope_theta
            rope = rope_table(columns.positions, config.head_dim, theta, config.rope_scaling)
        window = 0 if everywhere else config.sliding_window or 0
        reach = window if config.causal else window // 2 + 1  # of one side, the query's own place among it
        if columns.row_length <= reach:
            window = 0
        several_after_cached = config.causal and start and length > 1
        if not window and document_ids is None and padding_mask is None and not several_after_cached:
            return rope, None
        mask = attention_mask(
            columns.positions,
            columns.row_length,
            causal=config.causal,
            window=window,
            document_ids=document_ids,
            padding_mask=padding_mask,
        )
        return rope, mask

    def _check_length(self, length: int) -> None:
        limit = self.config.max_position_embeddings
        assert limit is not None
        if length > limit:
            raise ConfigError(
                f"a sequence of {length} tokens is longer than the model's max_position_embeddings {limit}; "
                f"shorten the sequence to at most {limit} tokens, or build the model with a larger value."
            )
