"""Dynamic loss scale for fp16: as large as the gradients bear, so that the small ones do not vanish.

Micikevicius et al. 2018, "Mixed Precision Training" (arXiv:1710.03740, §3.2), with the rule of Megatron-LM: a step
whose gradients overflow on any rank is skipped on all, its samples are passed over, and the scale falls only after
`hysteresis` such steps, which are counted anew only when it grows. Plain numbers, no tensors: every rank keeps its own
and, given the same verdicts, the same one. Factors are powers of two, so scaling and unscaling round nothing.
"""

from __future__ import annotations

import math
from typing import Any

from firstlight.config.loss_scale import LossScaleConfig
from firstlight.support.errors import DivergedError

GROWTH, BACKOFF = 2.0, 0.5
SCALE_PER_TOKEN = 4096
"""The loss is a mean over the tokens of a step, so one token's gradient shrinks with their number, and the scale that
makes up for it grows with it. With this one a gradient of 1 for one token's loss becomes 4,096, a sixteenth of fp16's
largest number: a step or a few may be skipped at first, which costs little, while a scale that starts too low loses
small gradients for `growth_interval` steps at each doubling. At a million tokens this is Megatron-LM's 2^32."""
STUCK_STEPS = 10
"""Overflows in a row at the minimum after which training stops. The weights do not move between them, so each is
another batch against the same model: one may be an outlier, ten are not."""


class LossScale:
    """`scale` multiplies the loss; `update` is told after every backward pass whether any gradient overflowed."""

    def __init__(self, config: LossScaleConfig, step_tokens: int) -> None:
        """step_tokens: tokens of a global batch, from which an unset `initial` follows."""
        self.config = config
        default = max(config.minimum, 2.0 ** math.floor(math.log2(SCALE_PER_TOKEN * step_tokens)))
        self.scale = config.initial if config.initial is not None else default
        self.skipped_steps = 0
        """Steps that were skipped since training began."""
        self._clean_steps = 0
        self._hysteresis = config.hysteresis
        self._stuck_steps = 0

    def update(self, overflow: bool) -> None:
        """Account for a step. overflow: a gradient on any rank was infinite or NaN, and the step was skipped.

        Raises DivergedError at the tenth overflow in a row that the smallest scale could not prevent.
        """
        if not overflow:
            self._stuck_steps = 0
            self._clean_steps += 1
            if self._clean_steps == self.config.growth_interval:
                self._clean_steps, self._hysteresis = 0, self.config.hysteresis
                self.scale *= GROWTH
            return
        self.skipped_steps += 1
        self._clean_steps = 0
        self._stuck_steps = self._stuck_steps + 1 if self.scale == self.config.minimum else 0
        self._hysteresis = max(0, self._hysteresis - 1)
        if self._hysteresis == 0:
            self.scale = max(self.config.minimum, self.scale * BACKOFF)
        if self._stuck_steps >= STUCK_STEPS:
            raise DivergedError(
                f"gradients overflowed fp16 in {STUCK_STEPS} steps in a row at the smallest loss scale "
                f"({self.scale:g}), so the scale is not the cause; nothing was changed by these steps. "
                "training.precision=bf16 or fp32, a lower optimizer.lr or a longer warm-up are what usually helps."
            )

    def state(self) -> dict[str, Any]:
        """Everything that the next `update` depends on, for the checkpoint; plain numbers."""
        return {
            "scale": self.scale,
            "skipped_steps": self.skipped_steps,
            "clean_steps": self._clean_steps,
            "hysteresis": self._hysteresis,
            "stuck_steps": self._stuck_steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up `state`; limits and intervals stay those of the configuration."""
        self.scale = max(self.config.minimum, state["scale"])
        self.skipped_steps = state["skipped_steps"]
        self._clean_steps = min(state["clean_steps"], self.config.growth_interval - 1)
        self._hysteresis = min(state["hysteresis"], self.config.hysteresis)
        self._stuck_steps = state["stuck_steps"]
