"""Which samples each step of a run reads, with what the run passed over when it went back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firstlight.pipeline.diagnosing import read_lines
from firstlight.support.errors import FirstlightError
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.checkpoint.folder import checkpoint_folder, read_state
from firstlight.training.run_folder import RunFolder


@dataclass(frozen=True)
class Course:
    """A run's way through its samples."""

    batch: int
    """Samples of a step."""
    total_steps: int
    reached: int
    """Last step that was trained, as far as is recorded."""
    passed_over: tuple[tuple[int, int], ...] = ()
    """[first, one past the last] of samples that no step which counts has read; rising, apart from each other."""

    @property
    def total_samples(self) -> int:
        """Samples up to the last step, those that were passed over included."""
        return self.total_steps * self.batch + sum(end - first for first, end in self.passed_over)

    def first_sample(self, step: int) -> int:
        """The first sample of a step (from 1)."""
        sample = (step - 1) * self.batch
        for first, end in self.passed_over:
            if sample >= first:
                sample += end - first
        return sample

    def step_of(self, sample: int) -> int | None:
        """The step that reads a sample; None: it was passed over."""
        before = 0
        for first, end in self.passed_over:
            if first <= sample < end:
                return None
            before += end - first if end <= sample else 0
        return (sample - before) // self.batch + 1


def course_of(run: RunFolder) -> Course:
    """What the run folder says: the newest readable checkpoint, and what has happened since."""
    config = run.config
    ranks = config.declared_world_size
    lines, _ = read_lines(run.metrics)
    events, _ = read_lines(run.events)
    saved, state = _newest_state(run)
    steps = [line["step"] for line in lines if isinstance(line.get("step"), int)]
    ranges = [*_ranges(state.get("skipped_samples")), *_ranges(_gone_back(events))]
    return Course(config.batch(ranks).global_batch_size, config.steps(ranks), max([saved, *steps]), merged(ranges))


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges of whole numbers, rising and apart from each other: a run that goes back twice passes over some twice."""
    result: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((first, end))
    return tuple(result)


def _newest_state(run: RunFolder) -> tuple[int, Mapping[str, Any]]:
    for step in reversed(checkpoint_steps(run.checkpoints)):
        try:
            return step, read_state(checkpoint_folder(run.checkpoints, step))
        except (FirstlightError, OSError):
            continue
    return 0, {}


def _gone_back(events: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Samples of every going back since the run was last resumed; those before are in its checkpoints, or forgotten."""
    ranges: list[Any] = []
    for event in events:
        if event.get("event") == "resumed":
            ranges = []
        elif event.get("event") == "rolled_back":
            ranges.append(event.get("skipped_samples"))
    return ranges


def _ranges(given: Any) -> list[tuple[int, int]]:
    """Those of a list that are [first, end] of whole numbers."""
    return [
        (part[0], part[1])
        for part in given or ()
        if isinstance(part, list) and len(part) == 2 and all(isinstance(number, int) for number in part)
    ]
