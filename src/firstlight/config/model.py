"""Shape of the Transformer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from firstlight.config.base import NonNegative, Positive, PositiveFloat, Section
from firstlight.config.batch import divisors, nearest_multiples
from firstlight.config.families import DEFAULTS, FAMILIES, Architecture, Family, Objective
from firstlight.support.errors import ConfigError

Dropout = Annotated[float, Field(ge=0, lt=1)]
_OPTIONAL = sorted(frozenset().union(*(family.optional for family in FAMILIES.values())))


class RopeScaling(Section):
    """Stretching of rotary positions beyond the length that a model was first trained with."""

    type: Literal["llama3", "linear"] = "llama3"
    """llama3: only low frequencies are stretched, as in LLaMA 3.1. linear: all of them."""
    factor: PositiveFloat = 8.0
    """How many times longer."""
    low_freq_factor: PositiveFloat = 1.0
    """llama3: wavelengths above original_max_position_embeddings / this are stretched."""
    high_freq_factor: PositiveFloat = 4.0
    """llama3: wavelengths below original_max_position_embeddings / this stay; between the two it is interpolated."""
    original_max_position_embeddings: Positive = 8192
    """llama3: positions that the model was first trained with."""

    @model_validator(mode="after")
    def _order(self) -> RopeScaling:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor {self.low_freq_factor:g} must be below high_freq_factor {self.high_freq_factor:g}"
            )
        return self


class ModelConfig(Section):
    """Shape of the Transformer."""

    architecture: Architecture = "llama"
    """Family: llama, mistral, qwen2, qwen3, olmo2, gpt2, bert or modernbert; see docs/model.md for what each one is."""
    objective: Objective | None = None
    """causal: each token predicts the next. masked: hidden tokens are predicted from both sides. Unset: masked for bert
    and modernbert, causal for the others."""
    vocab_size: Positive | None = None
    """Rows of the embedding; unset: the tokenizer's size rounded up to a multiple of 64."""
    vocab_padding: NonNegative = 0
    """Last rows of vocab_size that no token has, where it was rounded up; export leaves them out. Filled in."""
    hidden_size: Positive = 512
    """Width of the residual stream."""
    intermediate_size: Positive | None = None
    """Width of the feed-forward layer; unset: 8/3 hidden rounded up to 64 where it is gated, else 4 hidden."""
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
    rope_theta: PositiveFloat | None = None
    """Base of the rotary frequencies; unset: 10,000 (modernbert: 160,000)."""
    rope_scaling: RopeScaling | None = None
    """Stretching of rotary positions (LLaMA 3.1); unset: none."""
    local_rope_theta: PositiveFloat | None = None
    """Base of the rotary frequencies where attention is local; unset: 10,000. modernbert only."""
    sliding_window: NonNegative | None = None
    """Positions that local attention sees, itself among them: the last so many, or half of them on each side where the
    objective is masked. 0: all. Unset: 0 (modernbert: 128)."""
    global_attention_every: NonNegative | None = None
    """Every so manieth block, from the first, sees all positions in spite of sliding_window. 0: none. Unset: 3.
    modernbert only."""
    type_vocab_size: NonNegative | None = None
    """Rows of the table of token types (first and second segment); unset: 2. bert only."""
    norm_eps: PositiveFloat | None = Field(default=None, alias="rms_norm_eps")
    """Epsilon of RMSNorm or LayerNorm; unset: 1e-6 (gpt2, modernbert: 1e-5, bert: 1e-12)."""
    tie_word_embeddings: bool | None = None
    """Input embedding and output head share one matrix; unset: true for gpt2, bert and modernbert."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the normal initialisation."""
    hidden_dropout: Dropout = 0.0
    """Share of the embeddings and of what each attention and feed-forward layer adds that training sets to 0."""
    attention_dropout: Dropout = 0.0
    """Share of the attention weights that training sets to 0; above 0, attention is computed without fused kernels."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @property
    def family(self) -> Family:
        """What the architecture fixes."""
        return FAMILIES[self.architecture]

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return (self.objective or self.family.objectives[0]) == "causal"

    @property
    def has_dropout(self) -> bool:
        """Whether training drops anything."""
        return self.hidden_dropout > 0 or self.attention_dropout > 0

    def is_global(self, layer: int) -> bool:
        """Whether a block, counted from 0, sees all positions, on a resolved configuration."""
        return not self.sliding_window or bool(self.global_attention_every and layer % self.global_attention_every == 0)

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
        self._check_family()
        if self.family.positions == "rotary" and (self.head_dim or self.hidden_size // heads) % 2:
            raise ValueError("rotary positions need an even head_dim")
        return self

    def _check_family(self) -> None:
        if self.objective is not None and self.objective not in self.family.objectives:
            raise ValueError(
                f"architecture {self.architecture} has no objective {self.objective}; it has "
                f"{' and '.join(self.family.objectives)}"
            )
        without = {
            **DEFAULTS,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
        }
        for name in _OPTIONAL:
            value: Any = getattr(self, name)
            if name in self.family.optional or value is None or value == without.get(name):
                continue
            having = [other for other, family in FAMILIES.items() if name in family.optional]
            raise ValueError(
                f"architecture {self.architecture} has no {name}; leave it out or use architecture "
                f"{' or '.join(having)}"
            )
        if self.global_attention_every and self.sliding_window == 0:
            raise ValueError("global_attention_every needs a sliding_window above 0 for the other blocks")

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
        if self.family.gated:
            intermediate = -(-8 * self.hidden_size // (3 * 64)) * 64
        filled = {
            "objective": self.family.objectives[0],
            "vocab_size": vocab_size,
            "intermediate_size": intermediate,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
            "max_position_embeddings": sequence_length,
            **DEFAULTS,
            **self.family.defaults,
        }
        if self.sliding_window == 0:
            filled["global_attention_every"] = 0
        unset = {name: value for name, value in filled.items() if getattr(self, name) is None}
        return self.model_copy(update={**unset, "vocab_padding": padding})
