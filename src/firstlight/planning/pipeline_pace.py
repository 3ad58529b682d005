"""What sets the pace of a pipeline, in closed form, for a planner that looks at thousands of layouts.

`firstlight.planning.pipeline` deals blocks out exactly and `firstlight.planning.schedules` plays a schedule action by
action; both take milliseconds, and the tests hold these forms against them.
"""

from __future__ import annotations

import math

from firstlight.config.parallel import Schedule


def bubble_micro_batches(schedule: Schedule, ranks: int, stages_per_rank: int) -> float:
    """How many micro-batches' time on a rank a pipeline of equal stages stands idle in a step, beyond its work.

    (p-1)/v for 1f1b, gpipe and interleaved, v stages on each of p ranks; a third of it where the backward pass of the
    weights fills the rest, which leaves the start of the last rank.
    """
    split_backward = schedule in ("interleaved_zero_bubble", "zbv")
    return (ranks - 1) / stages_per_rank * (1 / 3 if split_backward else 1)


def costliest_rank(layers: int, ranks: int, block: float, head: float) -> tuple[int, bool]:
    """(blocks, whether the head is there too) of the rank that sets the pace when blocks are dealt out by cost
    (`firstlight.planning.pipeline.split_layers` deals them exactly)."""
    if ranks == 1:
        return layers, True
    best: tuple[float, int, bool] | None = None
    even = (layers * block + head) / (ranks * block)
    for last in {max(0, math.floor(even - head / block)), max(0, math.ceil(even - head / block))}:
        most = -(-(layers - last) // (ranks - 1))
        with_head = last * block + head
        pace = (with_head, last, True) if with_head >= most * block else (most * block, most, False)
        best = pace if best is None or pace[0] < best[0] else best
    assert best is not None
    return best[1], best[2]
