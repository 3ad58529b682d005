"""Shape of the Transformer."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from firstlight.config.base import NonNegative, Positive, PositiveFloat, Section
from firstlight.config.batch import divisors, nearest_multiples
from firstlight.support.errors import ConfigError


class ModelConfig(Section):
    """Shape of the Transformer."""

    architecture: Literal["llama", "gpt2"] = "llama"
    """llama: RMSNorm, RoPE, SwiGLU, no biases. gpt2: LayerNorm, learned positions, GELU, biases."""
    vocab_size: Positive | None = None
    """Rows of the embedding; unset: the tokenizer's size rounded up to a multiple of 64."""
    vocab_padding: NonNegative = 0
    """Last rows of vocab_size that no token has, where it was rounded up; export leaves them out. Filled in."""
    hidden_size: Positive = 512
    """Width of the residual stream."""
    intermediate_size: Positive | None = None
    """Width of the feed-forward layer; unset: 8/3 hidden rounded up to 64 (llama), 4 hidden (gpt2)."""
    num_hidden_layers: Positive = 8
    """Number of Transformer blocks."""
    num_attention_heads: Positive = 8
    """Query heads."""
    num_key_value_heads: Positive | None = None
    """Key and value heads; unset: as many as query heads."""
    head_dim: Positive | None = None
    """Width of one head; unset: hidden_size / num_attention_heads."""
    max_position_embeddings: Positive | None = None
    """Longest sequence the model is declared for; unset: data.sequence_length."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""
    norm_eps: PositiveFloat = Field(default=1e-6, alias="rms_norm_eps")
    """Epsilon of RMSNorm or LayerNorm."""
    qk_norm: bool = False
    """RMSNorm on every query and key head (Qwen3)."""
    tie_word_embeddings: bool = False
    """Input embedding and output head share one matrix."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the normal initialisation."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _shapes(self) -> ModelConfig:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.head_dim is None and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {heads}; "
                f"nearest that are: {nearest_multiples(self.hidden_size, heads)}"
            )
        if groups is not None and heads % groups:
            raise ValueError(
                f"num_attention_heads {heads} is not divisible by num_key_value_heads {groups}; "
                f"valid: {', '.join(str(d) for d in divisors(heads))}"
            )
        if self.architecture == "gpt2":
            for field, wrong in (
                ("num_key_value_heads", groups not in (None, heads)),
                ("qk_norm", self.qk_norm),
                ("head_dim", self.head_dim not in (None, self.hidden_size // heads)),
            ):
                if wrong:
                    raise ValueError(f"architecture gpt2 has no {field}; leave it out or use architecture llama")
        elif (self.head_dim or self.hidden_size // heads) % 2:
            raise ValueError("rotary positions need an even head_dim")
        return self

    def resolved(self, tokenizer_size: int | None = None, sequence_length: int = 1024) -> ModelConfig:
        """The same shape with every unset field filled in; the model is built from nothing else.

        Raises ConfigError when the vocabulary is smaller than the tokenizer, or unset and there is no tokenizer.
        """
        vocab_size, padding = self.vocab_size, self.vocab_padding
        if vocab_size is None:
            if tokenizer_size is None:
                raise ConfigError("model.vocab_size is missing; without a tokenizer it cannot be derived.")
            vocab_size = -(-tokenizer_size // 64) * 64
            padding = vocab_size - tokenizer_size
        if tokenizer_size is not None and vocab_size < tokenizer_size:
            raise ConfigError(
                f"model.vocab_size {vocab_size} is smaller than the tokenizer's {tokenizer_size}; "
                f"use at least {tokenizer_size}, or leave it out."
            )
        intermediate = 4 * self.hidden_size
        if self.architecture == "llama":
            intermediate = -(-8 * self.hidden_size // (3 * 64)) * 64
        return self.model_copy(
            update={
                "vocab_size": vocab_size,
                "vocab_padding": padding,
                "intermediate_size": self.intermediate_size or intermediate,
                "num_key_value_heads": self.num_key_value_heads or self.num_attention_heads,
                "head_dim": self.head_dim or self.hidden_size // self.num_attention_heads,
                "max_position_embeddings": self.max_position_embeddings or sequence_length,
            }
        )
