"""Hours, dollars and kilowatt-hours of a run, from the time of its step: ranges, with what every figure rests on.

A run takes longer than its steps. Evaluation and checkpoints are shares of its time; a failure costs the work since
the last checkpoint and a restart, and comes the oftener the more devices there are. Llama 3's 54 days on 16,384 H100
saw 419 unexpected interruptions (arXiv:2407.21783, section 3.3.4): one in 51,000 GPU-hours, with more than 90 % of the
time effective.

Energy is more than board power. A machine of eight H100, whose boards are rated at 5.6 kW together, draws 8.4 kW at
most in training (Latif et al. 2024, arXiv:2412.08602), 1.5 times as much, and 76 % of its own 10.2 kW in hard work
(Newkirk et al. 2025, arXiv:2506.14551), 1.4 times. A data centre draws its PUE times that: 1.1 as Llama's model cards
have it, 1.2 for BLOOM (Luccioni et al. 2022, arXiv:2211.02001), 1.5 for an average one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firstlight.planning.devices import Device, Price
from firstlight.planning.ranges import Range
from firstlight.planning.step_time import StepTime

DEVICE_HOURS_PER_FAILURE = 51_000.0
POWER_SHARE = Range(1.1, 1.4, 1.5)
"""What a device and its part of the machine draw, as a share of the board power."""
POWER_USAGE_EFFECTIVENESS = Range(1.1, 1.2, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """What a run's time goes to besides its steps."""

    evaluation: float = 0.01
    """Share of the steps' time (`evaluation_share` gives it for a recipe)."""
    checkpoints: float = 0.005
    """The same; Firstlight writes them while training goes on, so only the copy counts."""
    hours_lost_per_failure: float = 0.3
    """Half the time between checkpoints, finding out, and starting again: 0.3 leaves Llama 3 its 90 %."""

    def factor(self, devices: int) -> float:
        """Time of a run over the time of its steps."""
        lost = min(0.5, devices * self.hours_lost_per_failure / DEVICE_HOURS_PER_FAILURE)
        return (1 + self.evaluation + self.checkpoints) / (1 - lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """What a run takes. None: the device has no figure for it."""

    steps: int
    step_hours: Range
    """All steps, nothing else."""
    hours: Range
    """From start to end, with overheads."""
    device_hours: Range
    usd: Range | None
    price: Price | None
    energy_kwh: Range | None

    @property
    def days(self) -> Range:
        """`hours` / 24."""
        return self.hours.times(1 / 24)


def cost_of_run(
    step: StepTime,
    total_tokens: float,
    device: Device,
    *,
    price: Price | None = None,
    overheads: Overheads = Overheads(),
) -> RunCost:
    """Training `total_tokens` at the pace of `step`. price: of one device for an hour; unset: the device's.

    Low is the fast and cheap end, high the slow and dear one; both ends of several ranges together are rarer than each.
    The typical price is the geometric mean of its range.
    """
    price = price or device.price
    steps = math.ceil(total_tokens / step.tokens)
    step_hours = Range(*(steps * seconds / 3600 for seconds in (step.low_seconds, step.seconds, step.high_seconds)))
    hours = step_hours.times(overheads.factor(step.devices))
    device_hours = hours.times(step.devices)
    usd = None
    if price is not None:
        low, high = price.low_usd_per_hour, price.high_usd_per_hour
        usd = Range(device_hours.low * low, device_hours.typical * math.sqrt(low * high), device_hours.high * high)
    return RunCost(
        steps=steps,
        step_hours=step_hours,
        hours=hours,
        device_hours=device_hours,
        usd=usd,
        price=price,
        energy_kwh=energy_kwh(device, device_hours),
    )


def energy_kwh(device: Device, device_hours: Range) -> Range | None:
    """What `device_hours` draw from the grid; None when the board power is not known."""
    if device.power_watts is None:
        return None
    kilowatts = device.power_watts / 1000
    shares, efficiency = POWER_SHARE, POWER_USAGE_EFFECTIVENESS
    return Range(
        device_hours.low * kilowatts * shares.low * efficiency.low,
        device_hours.typical * kilowatts * shares.typical * efficiency.typical,
        device_hours.high * kilowatts * shares.high * efficiency.high,
    )


def evaluation_share(interval_steps: int, evaluated_tokens: float, tokens_per_step: int) -> float:
    """Time of validation as a share of the steps' time: a forward pass is a third of a step."""
    return evaluated_tokens / 3 / (interval_steps * tokens_per_step) if interval_steps else 0.0
