"""Where text comes from, how sources are mixed and cut into sequences, and the tokenizer between."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from firstlight.config.base import NonNegative, Positive, PositiveFloat, Section


class SourceConfig(Section):
    """Where the text of one source (domain) comes from."""

    text: list[str] = []
    """Files, globs, folders, `hf:NAME` datasets or `starter:NAME` packaged text."""
    tokens: str | None = None
    """A finished token dataset folder; used instead of `text`."""

    @model_validator(mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return {**value, "text": [value["text"]]}
        return value

    @model_validator(mode="after")
    def _not_both(self) -> SourceConfig:
        if self.text and self.tokens:
            raise ValueError("give `text` or `tokens`, not both")
        return self


class MixtureStage(Section):
    """From `start_tokens` on, draw samples by these weights."""

    start_tokens: NonNegative
    """Training tokens after which this stage begins."""
    mixture: dict[str, float]
    """Weight of each source; normalised to sum to 1."""


class DataConfig(Section):
    """Sources, their mixture, and how sequences are cut."""

    directory: str = "data"
    """Folder where prepared stages (corpora, tokenizers, token datasets) are kept."""
    sources: dict[str, SourceConfig] = {}
    """Name of each source (domain) and where its text is."""
    mixture: dict[str, float] = {}
    """Share of training samples by source; normalised to sum to 1. Empty: in proportion to tokens."""
    mixture_stages: list[MixtureStage] = []
    """Later mixtures, each from a token count on (annealing on better data)."""
    sequence_length: Positive = 1024
    """Tokens that the model sees at once."""
    max_epochs: PositiveFloat = 4.0
    """Most passes over any source; a mixture that needs more is an error."""
    mixture_block_size: Positive = 1024
    """Samples per block within which every source has its exact share."""
    attention_within_documents: bool = False
    """Tokens attend only to tokens of their own document."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of documents held out, chosen by a hash of their text."""
    shard_tokens: Positive = 100_000_000
    """Most tokens in one shard of a token dataset."""


class TokenizerConfig(Section):
    """An existing tokenizer, or how to train one."""

    path: str | None = None
    """`tokenizer.json`, a folder with one, or a Hugging Face hub name. Unset: train one."""
    vocab_size: Positive = 32000
    """Size of a trained vocabulary, special tokens included."""
    sample_bytes: Positive = 200_000_000
    """Most bytes of text to train on, drawn from the sources by mixture weight."""
    digits: Literal["single", "groups_of_three"] = "single"
    """How runs of digits are split before merging."""
