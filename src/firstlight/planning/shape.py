"""The shape of any Transformer language model, our own families or one that was only published, and its parameters.

`flops.py` counts for our own models, from their configuration. The planner also speaks of models that Firstlight does
not build (mixtures of experts, the GPT of a paper's table), so the few sizes that its formulas need are here, apart
from everything else that a configuration holds. `Shape.of` gives the shape of one of ours with exactly its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.config import ModelConfig
from firstlight.planning.flops import (
    divided_biases,
    head_matrices,
    head_widths,
    norm_parameters,
    parameter_count,
    whole_vectors,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Transformer language model. The feed-forward layers of `num_hidden_layers - dense_layers` blocks are
    mixtures of experts where `experts` is above 0."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    """Width of a dense feed-forward layer."""
    gated: bool
    """Three matrices a feed-forward layer (SwiGLU), else two; the same in experts."""
    vocab_size: int
    tied: bool = False
    """Embedding and head are one matrix."""
    table_rows: int = 0
    """Rows of tables beside the vocabulary's: learned positions, token types."""
    block_vectors: int = 0
    """Parameters of the norms and biases of one block."""
    other_vectors: int = 0
    """Parameters of norms and biases outside the blocks."""
    head_transform: int = 0
    """Weights of a matrix between the last block and the vocabulary's (BERT)."""
    experts: int = 0
    """Experts of a block that the router chooses from; 0: the model is dense."""
    experts_per_token: int = 0
    shared_experts: int = 0
    """Experts that every token passes, beside those chosen."""
    expert_size: int = 0
    """Width of one expert."""
    dense_layers: int = 0
    """Blocks whose feed-forward layer is dense although the model has experts."""

    def __post_init__(self) -> None:
        assert 0 <= self.experts_per_token <= self.experts, "a token cannot pass more experts than there are"
        assert (self.experts > 0) == (self.experts_per_token > 0) == (self.expert_size > 0), "experts need a size"

    @classmethod
    def of(cls, model: ModelConfig) -> Shape:
        """The shape of a resolved configuration; `parameters` agrees with `flops.parameter_count`."""
        family = model.family
        assert model.vocab_size and model.num_key_value_heads and model.head_dim and model.intermediate_size
        positions = model.max_position_embeddings if family.positions == "learned" else 0
        transform = family.transform != "none"
        norms = int(family.embedding_norm) + int(family.last_norm) - int(not family.first_norm) + int(transform)
        biases = model.vocab_size + (model.hidden_size if family.transform == "bias" else 0) if transform else 0
        shape = cls(
            num_hidden_layers=model.num_hidden_layers,
            hidden_size=model.hidden_size,
            num_attention_heads=model.num_attention_heads,
            num_key_value_heads=model.num_key_value_heads,
            head_dim=model.head_dim,
            intermediate_size=model.intermediate_size,
            gated=family.gated,
            vocab_size=model.vocab_size,
            tied=bool(model.tie_word_embeddings),
            table_rows=(positions or 0) + (model.type_vocab_size or 0),
            block_vectors=divided_biases(model) + whole_vectors(model),
            other_vectors=norms * norm_parameters(model) + biases,
            head_transform=head_matrices(model) - model.vocab_size * model.hidden_size,
        )
        assert shape.parameters == parameter_count(model), "the shape has not the parameters of the model"
        assert shape.attention_width == head_widths(model)[0]
        return shape

    @classmethod
    def gpt(cls, layers: int, hidden: int, heads: int, vocab: int, positions: int, bias: bool = True) -> Shape:
        """GPT-2 and its kind: learned positions, LayerNorm, feed-forward of 4h, tied head. bias=False is nanoGPT's."""
        return cls(
            num_hidden_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=hidden // heads,
            intermediate_size=4 * hidden,
            gated=False,
            vocab_size=vocab,
            tied=True,
            table_rows=positions,
            block_vectors=(13 if bias else 2) * hidden,
            other_vectors=(2 if bias else 1) * hidden,
        )

    @property
    def attention_width(self) -> int:
        """Width of all query heads: H·Q in the formulas of PaLM."""
        return self.num_attention_heads * self.head_dim

    @property
    def attention_matrices(self) -> int:
        """Weights of the four matrices of attention of one block."""
        keys = self.num_key_value_heads * self.head_dim
        return self.hidden_size * 2 * (self.attention_width + keys)

    @property
    def embedding_parameters(self) -> int:
        """The token table, without learned positions, and without the head where that is a matrix of its own."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters; tied weights once, every expert."""
        routed = self.experts * self._feed_forward(self.expert_size)
        return self._active + self._expert_layers * (
            routed - self.experts_per_token * self._feed_forward(self.expert_size)
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes: of the experts those that are chosen for it, everything else whole."""
        return self._active

    @property
    def non_embedding_parameters(self) -> int:
        """Kaplan's N: active parameters without the tables of tokens and positions and without the head."""
        head = self.head_transform + (0 if self.tied else self.embedding_parameters)
        return self._active - self.embedding_parameters - self.table_rows * self.hidden_size - head

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply the activations of one token, the head's among them (also when tied)."""
        return self._block_matrices + self.head_transform + self.embedding_parameters

    @property
    def _expert_layers(self) -> int:
        return self.num_hidden_layers - self.dense_layers if self.experts else 0

    @property
    def _block_matrices(self) -> int:
        experts = (self.experts_per_token + self.shared_experts) * self._feed_forward(self.expert_size)
        router = self.experts * self.hidden_size
        dense = (self.num_hidden_layers - self._expert_layers) * self._feed_forward(self.intermediate_size)
        attention = self.num_hidden_layers * self.attention_matrices
        return attention + dense + self._expert_layers * (experts + router)

    @property
    def _active(self) -> int:
        head = self.head_transform + (0 if self.tied else self.embedding_parameters)
        tables = self.embedding_parameters + self.table_rows * self.hidden_size
        vectors = self.num_hidden_layers * self.block_vectors + self.other_vectors
        return tables + self._block_matrices + vectors + head

    def _feed_forward(self, width: int) -> int:
        return self.hidden_size * width * (3 if self.gated else 2)
