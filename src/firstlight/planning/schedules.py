"""Pipeline schedules as data: which rank holds which stage, in what order it works, and how long it waits.

How long ranks wait comes from playing the schedule's own order of work against a clock, not from a formula, so that
unequal stages and every schedule are covered. The closed forms of Narayanan et al. 2021 (arXiv:2104.04473, §2.2) and
Qi et al. 2023 (arXiv:2401.10241, §2.3) hold for equal stages; the tests compare with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Literal, NamedTuple

from torch.distributed.pipelining import (
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)

from firstlight.config.parallel import Schedule

SEVERAL_STAGES: dict[str, Callable] = {
    "interleaved": ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": ScheduleInterleavedZeroBubble,
    "zbv": ScheduleZBVZeroBubble,
}
"""PyTorch's schedules for several stages on each rank."""


class Action(NamedTuple):
    """One piece of a rank's work on one micro-batch: F forward, B backward, or its halves: I for the gradient of the
    input, W for that of the weights."""

    kind: Literal["F", "B", "I", "W"]
    stage: int
    microbatch: int


def stage_ranks(schedule: Schedule, ranks: int, stages_per_rank: int = 1) -> list[int]:
    """The pipeline rank of every stage: looped (stage s on rank s mod ranks), for zbv in a V (0 … p-1, p-1 … 0)."""
    if schedule == "zbv":
        return [min(stage, 2 * ranks - 1 - stage) for stage in range(2 * ranks)]
    return [stage % ranks for stage in range(ranks * stages_per_rank)]


def schedule_order(schedule: Schedule, ranks: int, stages_per_rank: int, microbatches: int) -> list[list[Action]]:
    """What every rank does, in order, in one step; for numbers that `firstlight.config.parallel` lets through.

    For schedules with several stages per rank these are PyTorch's own tables. It runs gpipe and 1f1b without one, so
    theirs are written here as published: all forwards then all backwards; or `ranks - rank` forwards, then backward
    and forward in turn.
    """
    if schedule not in SEVERAL_STAGES:
        assert stages_per_rank == 1 and (schedule == "gpipe" or microbatches >= ranks)
        return [_single_stage_order(schedule, rank, ranks, microbatches) for rank in range(ranks)]
    stages = [
        SimpleNamespace(num_stages=ranks * stages_per_rank, group_size=ranks, group_rank=0, is_last=False, submod=None)
        for _ in range(stages_per_rank)
    ]
    table = SEVERAL_STAGES[schedule](stages, microbatches).pipeline_order
    return [
        [
            Action(action.computation_type.value, action.stage_index, action.microbatch_index)
            for action in table[rank]
            if action is not None
        ]
        for rank in range(ranks)
    ]


def bubble_fraction(
    schedule: Schedule,
    ranks: int,
    stages_per_rank: int,
    microbatches: int,
    stage_times: Sequence[float] | None = None,
) -> float:
    """Share of a step in which a rank waits, averaged over ranks: from 0 to below 1.

    stage_times: forward time of every stage in any unit (unset: all equal); a backward pass takes twice as long, half
    of it for the inputs and half for the weights. A step lasts from the first rank's start to the last rank's end,
    because the gradient norm makes every rank wait for all others; so zbv, whose ranks are never idle between their
    first and last action, still has the bubble of its staggered start. Sends cost nothing: what a slow link adds is
    not counted. Equal stages give (p-1)/(m+p-1) for gpipe and 1f1b, (p-1)/(v·m+p-1) for interleaved.
    """
    order = schedule_order(schedule, ranks, stages_per_rank, microbatches)
    times = list(stage_times) if stage_times is not None else [1.0] * (ranks * stages_per_rank)
    assert len(times) == ranks * stages_per_rank, "one time per stage"
    step = _play(order, times)
    busy = sum(_duration(action, times) for actions in order for action in actions)
    return 1 - busy / (ranks * step)


def peak_in_flight(actions: Sequence[Action], stage_sizes: Mapping[int, float]) -> float:
    """The most that one rank holds at a time, given its `actions` and what a micro-batch keeps in each of its stages.

    A forward pass keeps a stage's activations until its backward pass, or the weights' half of it, is done. Sizes of 1
    count micro-batches: ranks - rank for 1f1b, all of them for gpipe.
    """
    held = peak = 0.0
    for action in actions:
        if action.kind == "F":
            held += stage_sizes[action.stage]
            peak = max(peak, held)
        elif action.kind in "BW":
            held -= stage_sizes[action.stage]
    return peak


def _single_stage_order(schedule: Schedule, rank: int, ranks: int, microbatches: int) -> list[Action]:
    forward = [Action("F", rank, index) for index in range(microbatches)]
    backward = [Action("B", rank, index) for index in range(microbatches)]
    if schedule == "gpipe":
        return forward + backward
    ahead = ranks - rank
    steady = [action for pair in zip(backward, forward[ahead:], strict=False) for action in pair]
    return forward[:ahead] + steady + backward[microbatches - ahead :]


def _duration(action: Action, times: Sequence[float]) -> float:
    return times[action.stage] * (2 if action.kind == "B" else 1)


def _play(order: list[list[Action]], times: Sequence[float]) -> float:
    """Time at which the last rank ends: every rank works through its list, waiting for what an action needs."""
    ended: dict[tuple[str, int, int], float] = {}
    clock = [0.0] * len(order)
    place = [0] * len(order)
    moved = True
    while moved:
        moved = False
        for rank, actions in enumerate(order):
            while place[rank] < len(actions):
                action = actions[place[rank]]
                inputs = _needs(action, len(times))
                if not all(key in ended for key in inputs):
                    break
                clock[rank] = max(clock[rank], *(ended[key] for key in inputs), 0.0) + _duration(action, times)
                ended[_result(action)] = clock[rank]
                place[rank] += 1
                moved = True
    assert all(done == len(actions) for done, actions in zip(place, order, strict=True)), "the schedule hangs"
    return max(clock)


def _result(action: Action) -> tuple[str, int, int]:
    """What an action leaves to others: B and I both leave the gradient of the stage's input."""
    return ("I" if action.kind == "B" else action.kind), action.stage, action.microbatch


def _needs(action: Action, stages: int) -> list[tuple[str, int, int]]:
    kind, stage, microbatch = action
    if kind == "F":
        return [("F", stage - 1, microbatch)] if stage else []
    if kind == "W":
        return [("I", stage, microbatch)]
    later = [("I", stage + 1, microbatch)] if stage + 1 < stages else []
    return [("F", stage, microbatch), *later]
