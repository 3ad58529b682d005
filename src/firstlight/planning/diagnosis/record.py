"""What a run has written, as plain numbers: the one thing that rules look at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.config import RunConfig

Line = Mapping[str, Any]
_SPOILT = ("loss", "grad_norm")
"""What says nothing about the model where a step was skipped."""


class CannotTell(Exception):
    """A rule has too little to go by; its text says what is missing."""


@dataclass(frozen=True)
class SourceRecord:
    """What a run has drawn from one source so far, and will."""

    tokens: int
    """Training tokens of its dataset."""
    wanted: float
    """Share of samples that the mixture's weights ask for, over the stages gone through."""
    drawn: int
    """Samples."""
    skipped: int
    """Of those drawn, samples of steps that were skipped or rolled back."""
    epochs: float
    """Passes so far."""
    epochs_at_end: float
    """Passes at the last step."""
    last_wanted: float
    """Share of the present stage."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it. metrics and events: lines in the order of their steps and of time."""

    config: RunConfig
    """Resolved."""
    metrics: Sequence[Line]
    events: Sequence[Line]
    total_steps: int
    step_tokens: int
    """Tokens of a global batch."""
    warmup_end: int
    """Last step of the warm-up; 0: there is none."""
    decay_end: int
    """Step at which the schedule's lowest rate is reached."""
    sources: Mapping[str, SourceRecord] = field(default_factory=dict)
    """By name; empty where the records do not tell."""
    stage_steps: Sequence[int] = ()
    """First steps of later stages of the mixture, rising."""
    checkpoints: Sequence[int] = ()
    """Steps of complete checkpoints, rising."""
    damaged: Sequence[str] = ()
    """Names of checkpoints that were set aside."""
    running: bool = False
    """Whether a process holds the run's lock."""
    imported: bool = False
    """Whether its first weights were another project's."""
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Lines that are not readable, by file; one that is being written is not counted."""
    curves: dict[str, Curve] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `curve` has made, by key: many rules look at the same ones."""

    @property
    def last_step(self) -> int:
        """Last step that metrics, events or checkpoints know of."""
        steps = [int(line["step"]) for line in self.metrics[-1:]]
        steps += [step for step in (whole(event.get("step")) for event in self.events[-1:]) if step is not None]
        return max([*steps, *self.checkpoints[-1:]], default=0)

    @property
    def stage_start(self) -> int:
        """First step of the mixture's present stage."""
        return max((step for step in self.stage_steps if step <= self.last_step), default=0)

    def of_kind(self, *kinds: str) -> list[Line]:
        """Events of these kinds, in order; one that a resumed run met again, on the same samples, once."""
        once: dict[tuple[str, ...], Line] = {}
        for event in self.events:
            if event.get("event") in kinds:
                samples = event.get("samples", event.get("skipped_samples"))
                once[event["event"], str(event.get("step")), str(samples)] = event
        return list(once.values())


class Curve(NamedTuple):
    """Numbers by step: steps [n] int64, values [n] float64, all finite."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def since(self, step: int) -> Curve:
        """The part from `step` on."""
        kept = self.steps >= step
        return Curve(self.steps[kept], self.values[kept])

    def before(self, step: int) -> Curve:
        """The part before `step`."""
        kept = self.steps < step
        return Curve(self.steps[kept], self.values[kept])


def curve(record: RunRecord, key: str, at_least: int = 1) -> Curve:
    """The finite numbers called `key` in metrics, without loss and norm of steps that were skipped.

    CannotTell where there are fewer than `at_least`.
    """
    if key not in record.curves:
        skipped = {whole(event.get("step")) for event in record.of_kind("skipped")} if key in _SPOILT else set()
        record.curves[key] = finite([line for line in record.metrics if line["step"] not in skipped], key)
    found = record.curves[key]
    count = len(found.steps)
    if count < at_least:
        raise CannotTell(f"metrics have {key} {count} times, {at_least} are needed" if count else f"no {key}")
    return found


def finite(metrics: Sequence[Line], key: str) -> Curve:
    """The finite numbers called `key`, by step."""
    lines = [line for line in metrics if key in line]
    given = [line[key] for line in lines]
    if not set(map(type, given)) <= {float}:
        given = [math.nan if (value := number(one)) is None else value for one in given]
    values = np.array(given, dtype=np.float64)
    known = np.isfinite(values)
    return Curve(np.array([line["step"] for line in lines], dtype=np.int64)[known], values[known])


def stages(record: RunRecord, whole_curve: Curve) -> Iterator[Curve]:
    """The curve in pieces, one for each stage of the mixture: other data have another loss."""
    bounds = [0, *record.stage_steps]
    for start, end in zip(bounds, [*bounds[1:], None], strict=True):
        piece = whole_curve.since(start)
        yield piece if end is None else piece.before(end)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else that a line may hold."""
    if type(value) is float:  # as nearly all are
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """A whole number from 0 on, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else None


def span(value: Any) -> tuple[int, int] | None:
    """[first, last + 1] of samples, or None for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    first, end = whole(value[0]), whole(value[1])
    return None if first is None or end is None or end <= first else (first, end)
