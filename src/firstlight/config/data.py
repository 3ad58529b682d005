"""Where text comes from, how sources are mixed and cut into sequences, and the tokenizer between."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from firstlight.config.base import NonNegative, Positive, PositiveFloat, Section


class SourceConfig(Section):
    """Where the text of one source (domain) comes from."""

    text: list[str] = []
    """Files, globs, folders, `hf:NAME` datasets or `starter:NAME` packaged text."""
    tokens: str | None = None
    """A finished token dataset folder, or the prefix of Megatron-LM's `PREFIX.bin` and `PREFIX.idx`; used instead of
    `text`."""
    validation_tokens: str | None = None
    """A folder or prefix that is held out as a whole, in place of a part of `tokens`. Without `tokens` the source is
    validated on and not trained on."""
    license: str | None = None
    """Licence of the text, as CC-BY-4.0; the run's provenance says it, and what is made from that."""

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
        if self.text and self.validation_tokens:
            raise ValueError("validation_tokens goes with `tokens`; of text data.validation_fraction is held out")
        return self

    @property
    def only_validates(self) -> bool:
        """Whether nothing of it is trained on."""
        return bool(self.validation_tokens) and not self.text and not self.tokens


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
    split: str | None = None
    """Shares of a prefix's sequences for training, validation and neither, as Megatron-LM's --split; unset:
    969, 30, 1."""
    order: Literal["stateless", "megatron"] = "stateless"
    """Order of samples: computed from their number; or from indices, as Megatron-LM builds them."""

    @model_validator(mode="after")
    def _order_alone(self) -> DataConfig:
        if self.split is not None:
            split_shares(self.split)
        if self.order == "megatron":
            if self.mixture_stages:
                raise ValueError("order megatron knows one mixture; leave mixture_stages out, or use order stateless")
            if self.mixture_block_size != DataConfig.model_fields["mixture_block_size"].default:
                raise ValueError("order megatron has no blocks; leave mixture_block_size out, or use order stateless")
        for mixture in (self.mixture, *(stage.mixture for stage in self.mixture_stages)):
            for name in mixture:
                if name in self.sources and self.sources[name].only_validates:
                    raise ValueError(f"a mixture names '{name}', which has validation_tokens only; leave it out there")
        return self


def split_shares(split: str) -> list[float]:
    """Shares of train, validation and test, summing to 1, of up to three numbers ("969, 30, 1"). ValueError if none."""
    numbers = re.findall(r"[.\d]+", split)
    if not re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)([\s,]+(\d+\.?\d*|\.\d+)){0,2}\s*", split):
        raise ValueError(f"split {split!r}: up to three numbers are due (train, validation, test), as in 969, 30, 1")
    parts = [float(number) for number in numbers] + [0.0] * (3 - len(numbers))
    if not parts[0]:
        raise ValueError(f"split {split!r} leaves nothing to train on; the first number is the share of training")
    total = parts[0] + parts[1] + parts[2]  # in this order, as numpy adds them: the last bit can move a border
    return [part / total for part in parts]


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
