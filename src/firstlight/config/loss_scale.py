"""The loss scale of fp16 training."""

from __future__ import annotations

from pydantic import model_validator

from firstlight.config.base import Positive, PositiveFloat, Section


class LossScaleConfig(Section):
    """Dynamic loss scale of training.precision fp16: halved at overflow, doubled after a time without."""

    initial: PositiveFloat | None = None
    """Scale of the first step; unset: 4,096 × tokens of a step, rounded down to a power of two."""
    growth_interval: Positive = 1000
    """Steps in a row without overflow after which the scale doubles."""
    hysteresis: Positive = 2
    """Overflows since the scale last grew at which it is first halved; every later one halves it again."""
    minimum: PositiveFloat = 1.0
    """Smallest scale."""

    @model_validator(mode="after")
    def _order(self) -> LossScaleConfig:
        if self.initial is not None and self.initial < self.minimum:
            raise ValueError(f"initial {self.initial:g} is below minimum {self.minimum:g}")
        return self
