"""Which tokens the masked objective hides, and what stands in their place."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from firstlight.config.base import Fraction, PositiveFloat, Section


class MaskingConfig(Section):
    """Masked language modelling (Devlin et al. 2018, section 3.1); for model.objective masked."""

    fraction: Fraction = 0.15
    """Expected share of a sample's tokens that are to be predicted; special tokens never are."""
    unit: Literal["token", "word", "span"] = "token"
    """What is chosen together: single tokens, whole words, or runs of words (SpanBERT)."""
    mean_span: PositiveFloat = 3.8
    """span: expected words of a run; lengths are geometric and at most 10."""
    masked: Fraction = 0.8
    """Share of the chosen tokens that become the mask token."""
    random: Fraction = 0.1
    """Share of the chosen tokens that become a random ordinary token; the rest stay as they are."""

    @model_validator(mode="after")
    def _shares(self) -> MaskingConfig:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction is {self.fraction:g}; above 0 and below 1 is due")
        if self.masked + self.random > 1:
            raise ValueError(f"masked {self.masked:g} + random {self.random:g} is above 1")
        if not 1 <= self.mean_span <= 5:
            raise ValueError(f"mean_span is {self.mean_span:g}; 1 to 5 words are due (a run has at most 10)")
        if self.unit == "span" and self.fraction >= self.mean_span / (1 + self.mean_span):
            raise ValueError(
                f"fraction {self.fraction:g} leaves no word between runs of {self.mean_span:g}; below "
                f"{self.mean_span / (1 + self.mean_span):.3g} is due"
            )
        return self
