"""The simulated bubble is the published one where there is one, and orders are complete and can run."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from firstlight.planning.schedules import (
    Action,
    bubble_fraction,
    peak_in_flight,
    schedule_order,
    stage_ranks,
)

SIZES = [(p, m) for p in (1, 2, 4, 8) for m in (p, 2 * p, 4 * p)]
EVERY = [("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 3), ("interleaved_zero_bubble", 2), ("zbv", 2)]


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_the_bubble_is_the_published_one(p, m):
    for schedule in ("gpipe", "1f1b"):
        assert bubble_fraction(schedule, p, 1, m) == pytest.approx((p - 1) / (m + p - 1))
    for v in (2, 3):
        assert bubble_fraction("interleaved", p, v, m) == pytest.approx((p - 1) / (v * m + p - 1))
    assert bubble_fraction("interleaved_zero_bubble", p, 1, m) == pytest.approx((p - 1) / (3 * m + p - 1))  # ZB-H1
    if m >= 2 * p - 1:
        assert bubble_fraction("zbv", p, 2, m) == pytest.approx((p - 1) / (6 * m + p - 1))  # the staggered start


@pytest.mark.parametrize(("schedule", "v"), EVERY)
@pytest.mark.parametrize(("p", "m"), [*SIZES, (4, 20), (4, 10), (3, 5)])
def test_every_stage_does_every_microbatch_once_on_its_own_rank(schedule, v, p, m):
    order = schedule_order(schedule, p, v, m)
    ranks = stage_ranks(schedule, p, v)
    done = Counter()
    for rank, actions in enumerate(order):
        assert all(ranks[action.stage] == rank for action in actions)
        for kind, stage, microbatch in actions:
            done[("backward" if kind == "B" else kind), stage, microbatch] += 1
    assert set(done.values()) == {1}
    for stage, microbatch in itertools.product(range(p * v), range(m)):
        assert ("F", stage, microbatch) in done
        halves = [("I", stage, microbatch) in done, ("W", stage, microbatch) in done]
        assert all(halves) or (not any(halves) and ("backward", stage, microbatch) in done)
    assert 0 <= bubble_fraction(schedule, p, v, m) < 1


def test_a_slow_stage_makes_the_others_wait():
    even = bubble_fraction("1f1b", 4, 1, 8)
    slow = bubble_fraction("1f1b", 4, 1, 8, [1, 1, 1, 2])
    assert slow > even
    # The last rank is busy from its first input on: 3 forwards before it, 8 × (forward + backward) of length 2, and
    # 3 backward passes of length 2 after it.
    assert slow == pytest.approx(1 - 8 * 3 * (1 + 1 + 1 + 2) / (4 * (3 + 8 * 6 + 3 * 2)))
    assert bubble_fraction("1f1b", 4, 1, 8, [5] * 4) == pytest.approx(even)


@pytest.mark.parametrize("m", [8, 16])
def test_in_flight_microbatches_are_the_published_ones(m):
    p = 4

    def most(schedule, v, size=1.0):
        sizes = dict.fromkeys(range(p * v), size)
        return [peak_in_flight(actions, sizes) for actions in schedule_order(schedule, p, v, m)]

    assert most("gpipe", 1) == [m] * p
    assert most("1f1b", 1) == [p - rank for rank in range(p)]
    # Interleaving keeps 1 + (p-1)/(p·v) times the activations of 1f1b's first rank (Korthikanti et al. 2022, §4.2.3).
    assert most("interleaved", 2, size=1 / 2)[0] == p * (1 + (p - 1) / (p * 2))
    # ZBV's ranks all keep what 1f1b's first rank does (Qi et al. 2023, §6).
    assert set(most("zbv", 2, size=1 / 2)) == {p}


def test_actions_are_plain_tuples():
    assert schedule_order("1f1b", 1, 1, 1) == [[Action("F", 0, 0), Action("B", 0, 0)]]
