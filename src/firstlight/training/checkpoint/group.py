"""What the ranks of a process group tell each other about a checkpoint; the same calls work in a single process.

A failure on one rank is raised on all of them, so that none goes on alone and none waits for one that has stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from firstlight.support.errors import CheckpointError

T = TypeVar("T")


class Group:
    """The ranks of `process_group`; None: of the default one, or this process alone when there is none."""

    def __init__(self, process_group: dist.ProcessGroup | None = None) -> None:
        self.process_group = process_group
        together = process_group is not None or (dist.is_available() and dist.is_initialized())
        self.size = dist.get_world_size(process_group) if together else 1
        self.rank = dist.get_rank(process_group) if together else 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def on_each(self, work: Callable[[], T]) -> list[T]:
        """`work()` on every rank; all results in the order of ranks. Raises on all ranks when it raises on one."""
        outcome = _attempt(work)
        if self.size == 1:
            outcomes = [outcome]
        else:
            outcomes = [None] * self.size  # type: ignore[list-item]
            dist.all_gather_object(outcomes, outcome, group=self.process_group)
        failures = {rank: problem for rank, (_, problem) in enumerate(outcomes) if problem is not None}
        if failures:
            raise _of_ranks(failures, self.size)
        return [result for result, _ in outcomes]

    def on_first(self, work: Callable[[], T]) -> T:
        """`work()` on rank 0 only; its result, or what it raised, on every rank."""
        outcome: list[Any] = [_attempt(work) if self.is_first else None]
        if self.size > 1:
            first = 0 if self.process_group is None else dist.get_global_rank(self.process_group, 0)
            dist.broadcast_object_list(outcome, src=first, group=self.process_group)
        result, problem = outcome[0]
        if problem is not None:
            raise problem
        return result


def _attempt(work: Callable[[], T]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except (Exception, KeyboardInterrupt) as problem:
        return None, problem


def _of_ranks(failures: dict[int, BaseException], size: int) -> BaseException:
    """The failure of the lowest rank, which is named when others had none."""
    rank, problem = min(failures.items())
    if len(failures) < size and isinstance(problem, CheckpointError):
        return CheckpointError(f"rank {rank}: {problem}")
    return problem
