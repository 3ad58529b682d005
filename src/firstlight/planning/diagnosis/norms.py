"""Numbers that drift before a run fails: gradient norm, parameter norm, loss scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from firstlight.planning.diagnosis.curves import MEDIAN_ERROR, noise, share_median, slope
from firstlight.planning.diagnosis.finding import Finding
from firstlight.planning.diagnosis.record import CannotTell, RunRecord, curve, whole

LEAST_LINES = 40
GRADIENT_GROWTH = 3.0
"""Growth of the gradient norm, beyond what the schedule explains, that is worth a word."""
SUDDEN_GROWTH = 3.0
"""Growth from one tenth of the lines to the next that comes before a collapse rather than with the data."""
NORM_EXPONENT = 0.75
"""Parameter norms grow like the square root of the steps (Merrill et al. 2021, arXiv:2010.09697); clearly faster than
that is another mechanism."""
NORM_GROWTH = 1.3
COLLAPSE = 2.0**8
"""Fall of the loss scale below its usual value: eight halvings that nothing made up for."""
OVERFLOW_SHARE = 0.01
"""One overflow for each doubling is due, that is one in `growth_interval` (1,000) steps; ten times that is not."""


def gradient_growth(record: RunRecord) -> Iterator[Finding]:
    """A gradient norm that grows after the warm-up.

    With weight decay and normalised layers the norm of gradient over weight goes to sqrt(2·decay / lr) (Defazio 2025,
    arXiv:2506.02285), so that it rises while the rate falls; growth by sqrt(lr then / lr now) is taken as that.
    """
    norm = curve(record, "grad_norm", at_least=LEAST_LINES).since(max(record.warmup_end, record.stage_start) + 1)
    rate = curve(record, "learning_rate").since(max(record.warmup_end, record.stage_start) + 1)
    if len(norm.steps) < LEAST_LINES:
        raise CannotTell(f"fewer than {LEAST_LINES} lines of metrics since the warm-up or a change of the mixture")
    tenths = [share_median(norm.values, tenth / 10, (tenth + 1) / 10) for tenth in range(10)]
    rates = [share_median(rate.values, tenth / 10, (tenth + 1) / 10) for tenth in range(10)]
    lowest = int(np.argmin(tenths[:-1]))
    explained = max(1.0, rates[lowest] / rates[-1]) ** 0.5 if rates[-1] > 0 else np.inf
    if tenths[lowest] <= 0:
        return
    growth, recent = tenths[-1] / tenths[lowest], tenths[-1] / max(tenths[-2], tenths[lowest])
    if growth < GRADIENT_GROWTH * explained:
        return
    loss = curve(record, "loss").since(int(norm.steps[0]))
    unsure = 2 * MEDIAN_ERROR * noise(loss.values) / math.sqrt(len(loss.values) / 10)
    falling = share_median(loss.values, 0.9, 1.0) < share_median(loss.values, 0.5, 0.9) - unsure
    lr = record.config.optimizer.lr
    yield Finding(
        "growing gradient norm",
        "note" if falling and recent < SUDDEN_GROWTH else "warning",
        (int(norm.steps[lowest * len(norm.steps) // 10]), int(norm.steps[-1])),
        f"Its median went from {tenths[lowest]:.3g} to {tenths[-1]:.3g} ({growth:.1f} times"
        + (f"; the falling learning rate explains {explained:.1f}" if explained > 1.1 else "")
        + f"), while the loss {'fell on' if falling else 'did not fall any more'}.",
        "Nothing yet, as long as the loss falls; it often comes with text that is gone over again and again."
        if falling and recent < SUDDEN_GROWTH
        else f"Lower optimizer.lr (now {lr:g}); raise optimizer.weight_decay (now "
        f"{record.config.optimizer.weight_decay:g}) when the parameter norm grows too.",
    )


def parameter_growth(record: RunRecord) -> Iterator[Finding]:
    """A parameter norm that grows faster than the square root of the steps in the second half of its curve."""
    norm = curve(record, "param_norm", at_least=LEAST_LINES)
    late = norm.since(int(norm.steps[-1]) // 2)
    if len(late.steps) < LEAST_LINES // 2 or late.values.min() <= 0:
        raise CannotTell("too few lines of metrics in the second half")
    exponent = slope(np.log(late.steps), np.log(late.values)).value
    growth = float(late.values[-1] / late.values[0])
    if exponent <= NORM_EXPONENT or growth < NORM_GROWTH:
        return
    yield Finding(
        "growing parameter norm",
        "warning",
        (int(late.steps[0]), int(late.steps[-1])),
        f"It grew from {late.values[0]:.4g} to {late.values[-1]:.4g}, like steps^{exponent:.2f}; steps^0.5 is usual.",
        f"Raise optimizer.weight_decay (now {record.config.optimizer.weight_decay:g}) or lower optimizer.lr "
        f"(now {record.config.optimizer.lr:g}).",
    )


def loss_scale_collapse(record: RunRecord) -> Iterator[Finding]:
    """An fp16 loss scale that falls and falls, or overflows that come too often.

    A scale that went to nothing came with the divergences of OPT-175B (Zhang et al. 2022, arXiv:2205.01068, §2.5).
    """
    if record.config.training.precision != "fp16":
        raise CannotTell("only with training.precision fp16")
    scale = curve(record, "loss_scale", at_least=LEAST_LINES)
    usual, now = share_median(scale.values, 0.1, 0.9), float(scale.values[-1])
    remedy = (
        "Use training.precision=bf16 where the hardware has it; else lower optimizer.lr "
        f"(now {record.config.optimizer.lr:g}) and go back to a checkpoint from before the fall."
    )
    least = record.config.training.loss_scale.minimum
    if now <= usual / COLLAPSE or (now <= least < usual):
        began = int(scale.steps[np.flatnonzero(scale.values > usual / COLLAPSE)[-1]])
        yield Finding(
            "loss scale collapse",
            "problem" if now <= max(least, 1.0) else "warning",
            (began, int(scale.steps[-1])),
            f"The loss scale fell from {usual:g} to {now:g}: gradients overflow whatever the scale.",
            remedy,
        )
        return
    last = record.last_step
    begin = last - max(100, last // 10)
    late = [step for e in record.of_kind("overflow") if (step := whole(e.get("step"))) is not None and step > begin]
    share = len(late) / (last - max(0, begin))
    if share > OVERFLOW_SHARE and begin > 0:
        yield Finding(
            "many overflows",
            "warning",
            (min(late), max(late)),
            f"{len(late)} of the last {last - begin} steps ({share:.1%}) overflowed fp16 and were skipped.",
            remedy,
        )
