"""When a step counts as spoilt, and what then happens."""

from __future__ import annotations

from pydantic import model_validator

from firstlight.config.base import NonNegative, Positive, PositiveFloat, Section


class StabilityConfig(Section):
    """The guard: steps whose loss or gradient norm is far above those before it do not move the model."""

    guard: bool = True
    """Skip such steps and go back where they do not end. Off: only numbers that are not finite stop the run."""
    window_steps: Positive = 64
    """Accepted steps that a step is compared with."""
    least_steps: Positive = 32
    """Accepted steps before the first comparison."""
    loss_deviations: PositiveFloat = 6.0
    """A loss is too high above the window's median by so many robust deviations."""
    grad_norm_deviations: PositiveFloat = 12.0
    """The same of the logarithm of the gradient norm."""
    rollback_after: Positive = 16
    """Skipped steps in a row after which the run goes back to the last good checkpoint, past the samples since then."""
    max_rollbacks: NonNegative = 3
    """So many times; then the run stops."""

    @model_validator(mode="after")
    def _order(self) -> StabilityConfig:
        if self.least_steps > self.window_steps:
            raise ValueError(f"least_steps {self.least_steps} is above window_steps {self.window_steps}")
        return self
