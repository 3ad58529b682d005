"""Learning rate as a pure function of the step: nothing to save, nothing to restore, the same after any resume.

Linear warm-up from 0, then one of: cosine (Loshchilov & Hutter 2017, eq. 5, without restarts), linear, WSD
(warm-up, stable, decay: Hu et al. 2024, MiniCPM, §4), constant. `min_lr` is absolute and is reached at the last step.
"""

from __future__ import annotations

import math

from firstlight.config import OptimizerConfig, ScheduleConfig
from firstlight.support.errors import ConfigError


def learning_rate(
    step: int, schedule: ScheduleConfig, optimizer: OptimizerConfig, total_steps: int, step_tokens: int
) -> float:
    """Learning rate of optimizer step `step` (first step: 1). `step_tokens` converts lengths given in tokens.

    Warm-up step s of w has lr·s/w, so that the first step already learns. After the decay end: min_lr.
    """
    warmup = warmup_steps(schedule, total_steps, step_tokens)
    if step <= warmup:
        return optimizer.lr * step / warmup
    if schedule.name == "constant":
        return optimizer.lr
    start, end = decay_range(schedule, total_steps, step_tokens)
    progress = min(1.0, max(0.0, (step - start) / max(1, end - start)))
    falling = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1 - progress
    return optimizer.min_lr + falling * (optimizer.lr - optimizer.min_lr)


def warmup_steps(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> int:
    """Length of the warm-up in steps; unset: none."""
    steps = _in_steps(schedule.warmup_steps, schedule.warmup_tokens, step_tokens) or 0
    if steps > total_steps:
        raise ConfigError(
            f"schedule: the warm-up of {steps} steps is longer than training ({total_steps} steps); "
            f"use at most {total_steps}."
        )
    return steps


def decay_range(schedule: ScheduleConfig, total_steps: int, step_tokens: int) -> tuple[int, int]:
    """(last step at the full rate, step at which min_lr is reached)."""
    warmup = warmup_steps(schedule, total_steps, step_tokens)
    length = _in_steps(schedule.decay_steps, schedule.decay_tokens, step_tokens)
    if schedule.name == "wsd":
        length = length if length is not None else round(0.2 * total_steps)
        if warmup + length > total_steps:
            raise ConfigError(
                f"schedule: warm-up {warmup} + decay {length} steps exceed training ({total_steps} steps); "
                f"use a decay of at most {total_steps - warmup}."
            )
        return total_steps - length, total_steps
    end = length if length is not None else total_steps
    if end < warmup:
        raise ConfigError(f"schedule: the decay ends at step {end}, before the warm-up of {warmup} steps does.")
    return warmup, end


def _in_steps(steps: int | None, tokens: int | None, step_tokens: int) -> int | None:
    return steps if tokens is None else -(-tokens // step_tokens)
