"""Parameters that one tensor-parallel rank holds of each part of a model, and the units in which FSDP gathers them."""

from __future__ import annotations

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.flops import block_matrices, divided_biases, head_matrices, norm_parameters, whole_vectors

FP32 = 4
"""Bytes of a number."""


class RankSizes:
    """Numbers of elements; sizes are taken as evenly divided."""

    def __init__(self, model: ModelConfig, layout: Layout, precision: str) -> None:
        """model: resolved."""
        assert model.vocab_size is not None and model.max_position_embeddings is not None
        family, width, tensor = model.family, model.hidden_size, layout.tensor
        self.model, self.layout = model, layout
        self.sharded = layout.data * layout.context > 1
        self.width = FP32 if precision == "fp32" else 2
        """Bytes of a number in matrix products."""
        self.block_matrices = block_matrices(model) / tensor
        self.block = self.block_matrices + divided_biases(model) / tensor + whole_vectors(model)
        self.vocabulary = model.vocab_size * width / tensor
        self.norm = norm_parameters(model)
        transform = head_matrices(model) - model.vocab_size * width
        self.head: float = self.norm * int(family.last_norm)
        """What the last stage has besides the vocabulary's matrix."""
        if transform:
            biases = model.vocab_size / tensor + (width if family.transform == "bias" else 0)
            self.head += transform + self.norm + biases
        self.positions = model.max_position_embeddings * width / tensor if family.positions == "learned" else 0
        self.embedding = (model.type_vocab_size or 0) * width + self.norm * int(family.embedding_norm)
        """What the first stage has besides the tables of tokens and positions."""

    def units(self, first: bool, last: bool, pipeline: bool) -> tuple[list[float], list[float]]:
        """FSDP's units besides the blocks, of the first and the last stage where a rank has them: (those that stay
        gathered, those that are freed after use). pipeline: the two are different stages."""
        tied = bool(self.model.tie_word_embeddings)
        ends = [self.embedding + (self.vocabulary if tied else 0)] if first else []
        ends += [self.head + self.vocabulary] if last else []
        if first and last and not pipeline:
            ends = [self.embedding + self.head + self.vocabulary]
        freed = [self.vocabulary] if first and not tied else []
        freed += [self.positions] if first and self.positions else []
        return [unit for unit in ends if unit], freed
