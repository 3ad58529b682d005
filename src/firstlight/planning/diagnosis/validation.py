"""Held-out text against training: whether what is learned still helps on text that was not read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from firstlight.planning.diagnosis.curves import noise
from firstlight.planning.diagnosis.finding import Finding
from firstlight.planning.diagnosis.record import CannotTell, Curve, RunRecord, curve

PREFIX, SUFFIX = "validation/", "/loss"
LEAST_VALIDATIONS = 4
RISEN, RISEN_PROBLEM = 0.01, 0.05
"""Shares of its own best by which a validation loss is above it."""
SINCE_BEST = 2
"""Validations since the best one: a single worse one is chance."""
GAP_GROWTH = 0.03
"""Growth of the distance to the training loss, as a share of that loss."""
AROUND = 10
"""Lines of metrics before a validation that its training loss is the median of."""


def left_behind(record: RunRecord) -> Iterator[Finding]:
    """Sources whose validation loss rises while the training loss falls, or falls behind it further and further."""
    keys = sorted({key for line in record.metrics for key in line if key.startswith(PREFIX) and key.endswith(SUFFIX)})
    if not keys:
        raise CannotTell("no validation")
    training = curve(record, "loss").since(record.stage_start)
    known = [_of_source(record, key, training) for key in keys]
    looked_at = [finding for finding in known if finding is not None]
    if not looked_at:
        raise CannotTell(f"fewer than {LEAST_VALIDATIONS} validations since the warm-up or a change of the mixture")
    for findings in looked_at:
        yield from findings


def _of_source(record: RunRecord, key: str, training: Curve) -> list[Finding] | None:
    name = key.removeprefix(PREFIX).removesuffix(SUFFIX)
    held_out = curve(record, key).since(max(record.stage_start, record.warmup_end))
    source = record.sources.get(name)
    if len(held_out.steps) < LEAST_VALIDATIONS or (source and record.stage_start and source.last_wanted == 0):
        return None
    beside = [training.before(int(step) + 1).values[-AROUND:] for step in held_out.steps]
    if any(len(lines) == 0 for lines in beside):
        return None
    trained = np.array([np.median(lines) for lines in beside])
    uncertain = 2 * noise(training.values) / np.sqrt(AROUND)
    best, last = int(np.argmin(held_out.values)), len(held_out.values) - 1
    low, now = float(held_out.values[best]), float(held_out.values[last])
    falls = trained[best] - trained[last] > uncertain
    where = int(held_out.steps[best]), int(held_out.steps[last])
    if last - best >= SINCE_BEST and now > (1 + RISEN) * low and falls:
        return [
            Finding(
                "overfitting",
                "problem" if now > (1 + RISEN_PROBLEM) * low else "warning",
                where,
                f"Validation loss of '{name}' was lowest at step {where[0]}, {low:.3f}, and is {now:.3f} now, while "
                f"the training loss fell from {trained[best]:.3f} to {trained[last]:.3f}" + _epochs(record, name),
                f"{_nearest(record, where[0])} For the next run {_advice(record, name)}.",
            )
        ]
    middle = len(held_out.values) // 2
    gaps = held_out.values - trained
    growth = float(min(gaps[-2:]) - np.median(gaps[middle - 1 : middle + 1]))
    if growth > max(GAP_GROWTH * float(trained[last]), uncertain) and trained[middle] - trained[last] > uncertain:
        return [
            Finding(
                "validation falls behind",
                "note",
                (int(held_out.steps[middle]), where[1]),
                f"The distance of '{name}' to the training loss grew by {growth:.3f} nats since step "
                f"{held_out.steps[middle]}, to {gaps[last]:.3f}; its validation loss is {now:.3f}"
                + _epochs(record, name),
                f"Nothing yet, while it falls. When it no longer does, {_advice(record, name)}.",
            )
        ]
    return []


def _epochs(record: RunRecord, name: str) -> str:
    source = record.sources.get(name)
    return f"; its text has been read {source.epochs:.1f} times." if source and source.epochs > 1 else "."


def _nearest(record: RunRecord, best: int) -> str:
    if not record.checkpoints:
        return f"Save near step {best} next time (checkpoint.interval_steps)."
    step = min(record.checkpoints, key=lambda step: abs(step - best))
    return f"Of the checkpoints that are there use that of step {step} (firstlight export RUN DIR --step {step})."


def _advice(record: RunRecord, name: str) -> str:
    source = record.sources.get(name)
    if source and source.epochs > 1:
        less = f" or lower data.mixture.{name}" if len(record.sources) > 1 else " or train for fewer steps"
        return f"add text to '{name}'{less}, so that it is gone over less often"
    return f"raise optimizer.weight_decay (now {record.config.optimizer.weight_decay:g}) or use a smaller model"
