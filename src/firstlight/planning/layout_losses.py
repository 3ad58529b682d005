"""Why a layout is not the best: counted by reason while the search goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from firstlight.config import Layout
from firstlight.config.parallel import Schedule, check_model_fits
from firstlight.planning.division import Problem, Ranked, parallel_of
from firstlight.support.errors import ConfigError

LossKind = Literal["impossible", "refused", "memory", "slower"]
"""The arithmetic does not come out; training refuses for another reason; it does not fit; another is faster."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why some divisions lose."""

    kind: LossKind
    reason: str
    """impossible and refused: which arithmetic; memory: empty; slower: the part of `StepTime` that costs the most."""
    count: int
    example: str = ""
    """impossible, refused: what training would say to one of them."""
    lacks_bytes: float | None = None
    """memory: of the one that lacks the least."""
    times_slower: float | None = None
    """slower: the fastest of them over the best."""


class Losses:
    """Losses by kind and reason, as they come."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.candidates = 0
        self._kept: dict[tuple[LossKind, str], Loss] = {}

    def add(self, loss: Loss) -> None:
        known = self._kept.get((loss.kind, loss.reason))
        if known is not None:
            loss = replace(
                known,
                count=known.count + loss.count,
                lacks_bytes=_least(known.lacks_bytes, loss.lacks_bytes),
                times_slower=_least(known.times_slower, loss.times_slower),
            )
        self._kept[loss.kind, loss.reason] = loss

    def comes_out(
        self, reason: str, layout: Layout, micro_batches: int = 1, schedule: Schedule = "1f1b", stages: int = 1
    ) -> bool:
        """Whether training would take these sizes; what it would say is kept."""
        problem = self.problem
        if layout.pipeline > 1 and reason == "layers":
            schedule = "gpipe"  # takes any number of micro-batches
        try:
            check_model_fits(
                parallel_of(layout, schedule, stages), problem.model, problem.sequence_length, micro_batches
            )
        except ConfigError as problem_found:
            self.add(Loss("impossible", reason, 1, str(problem_found)))
            return False
        return True

    def slower(self, ranked: Ranked, best: Ranked) -> None:
        """Reason: the part of the step that costs more than that of the best by the most."""
        parts, least = ranked.step.parts, best.step.parts
        reason = max(parts, key=lambda name: parts[name] - least[name])
        self.add(Loss("slower", reason, 1, times_slower=ranked.step.seconds / best.step.seconds))

    def all(self) -> tuple[Loss, ...]:
        """Most frequent first."""
        return tuple(sorted(self._kept.values(), key=lambda loss: -loss.count))


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)
