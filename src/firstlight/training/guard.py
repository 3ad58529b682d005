"""Judges every step before the optimizer moves: a spoilt one is skipped, and where they do not end the run goes back.

A loss or gradient norm is spoilt when it is not finite, or far above the accepted steps before it: more than k robust
deviations above their median. The deviation is 1.4826 times the median distance from the median (Hampel 1974, "The
Influence Curve and its Role in Robust Estimation"), the standard deviation of normal numbers, which a few outliers do
not move. Gradient norms vary by factors, so their logarithms are compared. Only what is accepted enters the window, and
every number is the same on all ranks, so all come to the same verdict without a word.

Skipping a batch and going back to a checkpoint with other data is what the PaLM team did by hand (Chowdhery et al.
2022, arXiv:2204.02311, section 5.1).
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from firstlight.config import StabilityConfig

TO_DEVIATION = 1.4826
"""Standard deviation of normal numbers over the median of their distances from the median."""
LEAST_LOSS_SPREAD = 0.01
"""Smallest deviation of losses that is believed, as a share of their median: with very large batches losses differ by
less from step to step, and a model that has learnt its text by heart would reject steps for nothing."""
LEAST_NORM_SPREAD = 0.07
"""The same of logarithms of gradient norms: twelve such deviations are a factor of 2.3."""


TINIEST = 1e-30
"""Stands for 0 where 0 has no logarithm or cannot divide."""


class Verdict(NamedTuple):
    """What the guard says about a step."""

    accepted: bool
    reason: str = ""
    """"not finite", "loss" or "grad_norm"; empty when accepted."""
    limit: float | None = None
    """What the loss or the gradient norm would have had to stay below."""


@dataclass
class _Window:
    """Accepted numbers, the newest last."""

    numbers: deque[float]
    relative: bool
    """Whether LEAST_LOSS_SPREAD times the median is the smallest deviation, or LEAST_NORM_SPREAD."""

    def deviations(self, number: float) -> float:
        """How many robust deviations a number lies above the median."""
        middle, spread = self._middle_and_spread()
        return (number - middle) / spread

    def at(self, deviations: float) -> float:
        """The number that lies so many robust deviations above the median."""
        middle, spread = self._middle_and_spread()
        return middle + deviations * spread

    def _middle_and_spread(self) -> tuple[float, float]:
        middle = statistics.median(self.numbers)
        spread = TO_DEVIATION * statistics.median(abs(number - middle) for number in self.numbers)
        return middle, max(spread, LEAST_LOSS_SPREAD * abs(middle) if self.relative else LEAST_NORM_SPREAD, TINIEST)


class Guard:
    """`judge` is told the loss and the gradient norm of every step, and says whether the optimizer may use it."""

    def __init__(self, config: StabilityConfig, changes: Sequence[int] = ()) -> None:
        """changes: first samples of later mixtures, rising; other data has other losses, so the window begins anew."""
        self.config = config
        self._changes, self._stage = list(changes), 0
        self.rollbacks = 0
        """Times that the run has gone back."""
        self.skipped_steps = 0
        """Steps that were not accepted, since training began."""
        self.in_a_row = 0
        """Steps since the last accepted one."""
        self._since_skip = 0
        size = config.window_steps
        self._losses = _Window(deque(maxlen=size), relative=True)
        self._norms = _Window(deque(maxlen=size), relative=False)

    def judge(self, loss: float, grad_norm: float, first_sample: int = 0) -> Verdict:
        """loss: mean of the step in nats a token. grad_norm: of the whole gradient before clipping. first_sample: of
        the step's batch."""
        stage = bisect_right(self._changes, first_sample)
        if stage != self._stage:
            self._stage = stage
            self._losses.numbers.clear()
            self._norms.numbers.clear()
        verdict = self._verdict(loss, grad_norm)
        if verdict.accepted:
            self._losses.numbers.append(loss)
            self._norms.numbers.append(_logarithm(grad_norm))
            self.in_a_row = 0
            self._since_skip += 1
        else:
            self.skipped_steps += 1
            self.in_a_row += 1
            self._since_skip = 0
        return verdict

    def _verdict(self, loss: float, grad_norm: float) -> Verdict:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return Verdict(False, "not finite")
        if not self.config.guard or len(self._losses.numbers) < self.config.least_steps:
            return Verdict(True)
        loss_deviations, norm_deviations = self.deviations(loss, grad_norm)
        if loss_deviations > self.config.loss_deviations:
            return Verdict(False, "loss", self._losses.at(self.config.loss_deviations))
        if norm_deviations > self.config.grad_norm_deviations:
            return Verdict(False, "grad_norm", math.exp(min(self._norms.at(self.config.grad_norm_deviations), 700.0)))
        return Verdict(True)

    def deviations(self, loss: float, grad_norm: float) -> tuple[float, float]:
        """How many robust deviations loss and logarithm of the gradient norm lie above the medians of the window."""
        return self._losses.deviations(loss), self._norms.deviations(_logarithm(grad_norm))

    @property
    def gives_up(self) -> bool:
        """Whether so many steps in a row were skipped that waiting for a better batch is no use."""
        return self.in_a_row >= (self.config.rollback_after if self.config.guard else 1)

    @property
    def calm(self) -> bool:
        """Whether no step was skipped for as long as it takes to give up: what a checkpoint to go back to must be."""
        return self._since_skip >= self.config.rollback_after

    def why_not_back(self, good: int | None) -> str:
        """Why the run stops instead of going back to the checkpoint of step `good` (None: there is none), or ""."""
        if not self.config.guard:
            return "stability.guard is false"
        if good is None:
            return "there is no checkpoint of an undisturbed time to go back to (checkpoint.interval_steps)"
        if self.rollbacks >= self.config.max_rollbacks:
            return f"going back {self.rollbacks} times did not help (stability.max_rollbacks)"
        return ""

    def state(self) -> dict[str, Any]:
        """All that `judge` depends on, for the checkpoint; plain numbers."""
        return {
            "losses": list(self._losses.numbers),
            "log_grad_norms": list(self._norms.numbers),
            "rollbacks": self.rollbacks,
            "skipped_steps": self.skipped_steps,
            "in_a_row": self.in_a_row,
            "since_skip": self._since_skip,
            "stage": self._stage,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up `state`; lengths and limits stay those of the configuration."""
        for window, key in ((self._losses, "losses"), (self._norms, "log_grad_norms")):
            window.numbers.clear()
            window.numbers.extend(state[key])
        self.rollbacks, self.skipped_steps = state["rollbacks"], state["skipped_steps"]
        self.in_a_row, self._since_skip, self._stage = state["in_a_row"], state["since_skip"], state["stage"]

    def go_back(self, state: dict[str, Any] | None) -> None:
        """Take up the window of the checkpoint that the run goes back to; what was counted since is not forgotten."""
        rollbacks, skipped = self.rollbacks, self.skipped_steps
        if state is not None:
            self.load(state)
        self.rollbacks, self.skipped_steps = rollbacks + 1, skipped
        self.in_a_row = self._since_skip = 0


def _logarithm(grad_norm: float) -> float:
    return math.log(max(grad_norm, TINIEST))
