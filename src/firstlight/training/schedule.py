"""Learning rate as a pure function of the step: nothing to save, nothing to restore, the same after any resume.

Linear warm-up, then one of: cosine (Loshchilov & Hutter 2017, eq. 5, without restarts), linear, WSD (warm-up, stable,
decay: Hu et al. 2024, MiniCPM, §4), inverse square root (Vaswani et al. 2017, eq. 3), constant. `min_lr` is absolute.
With `position: before_step` every step has the learning rate of Megatron-LM's OptimizerParamScheduler.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from firstlight.config import OptimizerConfig, ScheduleConfig
from firstlight.support.errors import ConfigError


def learning_rate(
    step: int, schedule: ScheduleConfig, optimizer: OptimizerConfig, total_steps: int, step_tokens: int
) -> float:
    """Learning rate of optimizer step `step` (first step: 1). `step_tokens` converts lengths given in tokens.

    Step s of a warm-up of w has initial_lr + (lr - initial_lr)·p/w, where p is s, or s - 1 with `position:
    before_step`. After the decay end: min_lr.
    """
    position = step if schedule.position == "after_step" else step - 1
    warmup, start, end = _lengths(schedule, total_steps, step_tokens)
    if warmup and position <= warmup:
        return schedule.initial_lr + (optimizer.lr - schedule.initial_lr) * position / warmup
    if schedule.name == "constant":
        return optimizer.lr
    if position > end:
        return optimizer.min_lr
    if schedule.name == "inverse_square_root":
        return max(optimizer.min_lr, optimizer.lr * math.sqrt(warmup / position))
    progress = max(0.0, (position - start) / ((end - start) or 1))
    return optimizer.min_lr + _left(schedule, progress) * (optimizer.lr - optimizer.min_lr)


def _left(schedule: ScheduleConfig, progress: float) -> float:
    """Share of the way from lr down to min_lr that is still ahead, after `progress` (0 to 1) of the decay."""
    shape = schedule.wsd_decay if schedule.name == "wsd" else schedule.name
    if shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if shape == "exponential":
        return 2 * 0.5**progress - 1
    if shape == "minus_sqrt":
        return 1 - math.sqrt(progress)
    return 1 - progress


def warmup_steps(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> int:
    """Length of the warm-up in steps, rounded up to whole ones; unset: none."""
    return math.ceil(_warmup(schedule, total_steps, step_tokens))


def decay_range(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> tuple[int, int]:
    """(last step at the full rate, step at which min_lr is reached), rounded up to whole ones."""
    lengths = _lengths(schedule, total_steps, step_tokens)
    return math.ceil(lengths.start), math.ceil(lengths.end)


class _Lengths(NamedTuple):
    """In steps; whole ones but for `position: before_step` with lengths in tokens."""

    warmup: float
    start: float
    """End of the full rate."""
    end: float
    """Where min_lr is reached."""


def _lengths(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> _Lengths:
    warmup = _warmup(schedule, total_steps, step_tokens)
    length = _in_steps(schedule, schedule.decay_steps, schedule.decay_tokens, step_tokens)
    if schedule.name == "wsd":
        length = length if length is not None else round(0.2 * total_steps)
        if warmup + length > total_steps:
            raise ConfigError(
                f"schedule: warm-up {warmup:g} + decay {length:g} steps exceed training ({total_steps} steps); "
                f"use a decay of at most {total_steps - warmup:g}."
            )
        return _Lengths(warmup, total_steps - length, total_steps)
    end = length if length is not None else total_steps
    if end < warmup:
        raise ConfigError(f"schedule: the decay ends at step {end:g}, before the warm-up of {warmup:g} steps does.")
    return _Lengths(warmup, warmup, end)


def _warmup(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> float:
    steps = _in_steps(schedule, schedule.warmup_steps, schedule.warmup_tokens, step_tokens) or 0
    if steps > total_steps:
        raise ConfigError(
            f"schedule: the warm-up of {steps:g} steps is longer than training ({total_steps} steps); "
            f"use at most {total_steps}."
        )
    return steps


def _in_steps(schedule: ScheduleConfig, steps: int | None, tokens: int | None, step_tokens: int) -> float | None:
    if tokens is None:
        return steps
    return tokens / step_tokens if schedule.position == "before_step" else -(-tokens // step_tokens)
