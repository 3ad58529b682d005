"""The constants of the step-time model, and how a run of one's own corrects them.

Each has a meaning that can be measured apart. The default is what `benchmarks/calibrate_throughput.py` fits on
published runs with the prior that stands beside each constant there; docs/planner-model.md says how well it predicts
hardware that it was not fitted on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from firstlight.support.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Shares are of what the device's data say; 1 would be perfect."""

    matmul: float
    """Of the best matrix product: what those of training reach, whose shapes and clocks are not the best."""
    attention: float
    """Of fused attention as measured alone."""
    memory: float
    """Of the memory's bandwidth: what element-wise kernels reach."""
    network: float
    """Of a link's bandwidth: what collectives reach."""
    overlap: float
    """Of FSDP's communication: what can run beside computation."""
    eager: float
    """How many times the bytes of compiled blocks eager ones move."""
    straggling: float
    """What each doubling of the number of machines adds to a step, because the slowest is waited for."""
    launch_seconds: float = 4e-4
    """The processor's time to start the kernels of a compiled block, forward and backward, which matters where a
    micro-batch is small; eager blocks take `eager` times that. Not fitted: published runs have large micro-batches."""
    scale: float = 1.0
    """Measured over predicted seconds of a step, from a run of one's own."""
    spread: float
    """Within what two of three steps lie of their prediction, as a logarithm: the half-width of a range."""
    layout_spread: float
    """The same where hardware and software are those of the calibrating run, and sizes and layout another."""
    source: str


DEFAULT = Calibration(
    matmul=0.9494,
    attention=0.5658,
    memory=0.7716,
    network=0.6334,
    overlap=0.6861,
    eager=1.78,
    straggling=0.009185,
    spread=0.14,
    layout_spread=0.05,
    source="published runs",
)
"""Fitted on published runs."""


def calibrate_from_run(
    lines: Iterable[Mapping[str, Any]], predicted_tokens_per_second: float, base: Calibration = DEFAULT
) -> Calibration:
    """`base` scaled so that it predicts the speed of a run that was measured.

    lines: the run's metrics in order, of which `tokens_per_second` is read; other lines are passed over, and so is the
    first with a speed, which holds compilation. predicted_tokens_per_second: what `base` predicts for that run, over
    all its devices. The speed is the median, so that pauses do not count; the spread is that of the lines together
    with what another layout may differ by. DataError when fewer than 3 lines are left.
    """
    speeds = [line["tokens_per_second"] for line in lines if _is_speed(line.get("tokens_per_second"))][1:]
    if len(speeds) < 3:
        raise DataError(
            f"the run has {len(speeds)} lines of metrics with a speed after its first; at least 3 are needed to "
            "calibrate, so let it run longer or lower logging.interval_steps."
        )
    middle = statistics.median(speeds)
    deviation = 1.4826 * statistics.median(abs(math.log(speed / middle)) for speed in speeds)
    return replace(
        base,
        scale=base.scale * predicted_tokens_per_second / middle,
        spread=math.hypot(base.layout_spread, deviation),
        source=f"a run of your own ({len(speeds)} lines of metrics)",
    )


def _is_speed(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
