"""How many micro-batches a pipeline rank holds in each of its stages at the moments when it holds the most.

Playing a whole schedule is exact (`firstlight.planning.schedules.peak_in_flight`) but slow, and a search asks for
thousands. So the moments are found once for each schedule and remembered: written down for gpipe, 1f1b and interleaved
1F1B (Narayanan et al. 2021, arXiv:2104.04473, §2.2; Korthikanti et al. 2022, arXiv:2205.05198, §4.2.3), played for the
zero-bubble schedules, of which a few rounds show everything that more rounds repeat. The tests play all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from firstlight.config.parallel import Schedule
from firstlight.planning.schedules import schedule_order, stage_ranks

SPLIT_BACKWARD: tuple[Schedule, ...] = ("interleaved_zero_bubble", "zbv")
"""Schedules that take the backward pass apart: first the gradient of a stage's input, later that of its weights."""
ROUNDS = 2
"""Rounds of micro-batches after which a schedule repeats itself."""
Counts = tuple[int, ...]
"""Micro-batches in each stage of a rank, stages rising."""


def peak_held(
    schedule: Schedule,
    ranks: int,
    stages_per_rank: int,
    microbatches: int,
    kept: NDArray[np.float64],
    waiting: NDArray[np.float64] | None = None,
    *,
    in_last_stage: bool = False,
) -> NDArray[np.float64]:
    """The most that each rank holds at a time: [ranks].

    kept: what one micro-batch keeps in each stage of each rank until it goes backward there, [ranks, stages of a rank],
    stages rising. waiting: what it keeps where the gradient of the input is done and that of the weights is not, which
    only schedules that take the backward pass apart know; unset, as much. in_last_stage: only at moments when the last
    stage of the rank has a micro-batch in flight.
    """
    sizes = np.concatenate((kept, kept if waiting is None else waiting), axis=1)
    counts = in_flight(schedule, ranks, stages_per_rank, microbatches)
    held = np.einsum("rms,rs->rm", counts, sizes)
    if in_last_stage:
        held = np.where(counts[:, :, stages_per_rank - 1] > 0, held, 0)
    return held.max(axis=1)


@functools.cache
def in_flight(schedule: Schedule, ranks: int, stages_per_rank: int, microbatches: int) -> NDArray[np.float64]:
    """[ranks, moments, 2 × stages of a rank]: micro-batches in flight, and then those that wait for the weights' half
    of their backward pass, at every moment that may be the fullest. Which one is depends on the sizes of the stages; a
    rank with fewer such moments repeats its last."""
    moments: list[list[Counts]]
    if schedule in SPLIT_BACKWARD:
        moments = [_fullest(counts) for counts in _played(schedule, ranks, stages_per_rank, microbatches)]
    elif schedule == "gpipe":
        moments = [[(microbatches, 0)]] * ranks
    elif schedule == "1f1b":
        moments = [[(min(ranks - rank, microbatches), 0)] for rank in range(ranks)]
    else:
        nobody = (0,) * stages_per_rank
        moments = [
            [held + nobody for held in _interleaved(rank, ranks, stages_per_rank, microbatches)]
            for rank in range(ranks)
        ]
    most = max(map(len, moments))
    return np.array([counts + counts[-1:] * (most - len(counts)) for counts in moments], dtype=np.float64)


def _interleaved(rank: int, ranks: int, stages: int, microbatches: int) -> list[Counts]:
    """After each forward pass of the steady state, when a rank always holds one more than it was ahead at first:
    micro-batches go through its stages in rounds of equal size, and backward through its last stage first."""
    in_round = microbatches // max(1, microbatches // ranks)
    ahead = min((stages - 1) * in_round + 2 * (ranks - 1 - rank), microbatches * stages)
    held = [0] * stages
    for step in range(ahead):
        held[step // in_round % stages] += 1
    if ahead == microbatches * stages:
        return [tuple(held)]
    moments = set()
    for step in range(min(stages * in_round, microbatches * stages - ahead)):
        held[(ahead + step) // in_round % stages] += 1
        moments.add(tuple(held))
        held[stages - 1 - step // in_round % stages] -= 1
    return sorted(moments)


def _played(schedule: Schedule, ranks: int, stages_per_rank: int, microbatches: int) -> list[set[Counts]]:
    """Micro-batches in flight and waiting after each forward pass and each half of a backward pass, of every rank."""
    in_round = ranks * stages_per_rank
    if schedule != "zbv":
        in_round = microbatches // max(1, microbatches // ranks)
    order = schedule_order(schedule, ranks, stages_per_rank, min(microbatches, ROUNDS * in_round))
    owners = stage_ranks(schedule, ranks, stages_per_rank)
    found = []
    for rank, actions in enumerate(order):
        held = {stage: 0 for stage, owner in enumerate(owners) if owner == rank}
        waiting = dict(held)
        moments = set()
        for action in actions:
            held[action.stage] += (action.kind == "F") - (action.kind in "BI")
            waiting[action.stage] += (action.kind == "I") - (action.kind == "W")
            moments.add((*held.values(), *waiting.values()))
        found.append(moments)
    return found


def _fullest(moments: Iterable[Counts]) -> list[Counts]:
    """Those that no other one exceeds in every stage."""
    different = set(moments)
    return sorted(
        counts
        for counts in different
        if not any(other != counts and all(a >= b for a, b in zip(other, counts, strict=True)) for other in different)
    )
