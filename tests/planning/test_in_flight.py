"""What is remembered of a schedule is what playing it shows, for stages of any size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.planning.in_flight import SPLIT_BACKWARD, in_flight, peak_held
from firstlight.planning.schedules import peak_in_flight, schedule_order, stage_ranks

SEVERAL = ("interleaved", "interleaved_zero_bubble", "zbv")


def allowed(schedule: str, ranks: int, stages: int, microbatches: int) -> bool:
    """As `firstlight.config.parallel` decides."""
    if schedule.startswith("interleaved"):
        return microbatches % max(1, microbatches // ranks) == 0
    return microbatches >= {"1f1b": ranks, "zbv": ranks * stages}.get(schedule, 1)


CASES = [
    (schedule, ranks, stages, microbatches)
    for schedule, ranks, stages, microbatches in itertools.product(
        ("gpipe", "1f1b", *SEVERAL), (2, 3, 4), (1, 2, 3), (1, 2, 3, 4, 6, 8, 9, 12, 24)
    )
    if (stages > 1) == (schedule in SEVERAL) and (schedule, stages) != ("zbv", 3)
    if allowed(schedule, ranks, stages, microbatches)
]


@settings(max_examples=150)
@given(st.sampled_from(CASES), st.data())
def test_the_peak_is_that_of_the_schedule_played(case, data):
    schedule, ranks, stages, microbatches = case
    owners = stage_ranks(schedule, ranks, stages)
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=len(owners), max_size=len(owners)))
    kept = np.array([[sizes[stage] for stage, owner in enumerate(owners) if owner == rank] for rank in range(ranks)])
    order = schedule_order(schedule, ranks, stages, microbatches)
    expected = [peak_in_flight(actions, dict(enumerate(sizes))) for actions in order]
    assert peak_held(schedule, ranks, stages, microbatches, kept.astype(float)).tolist() == expected


@settings(max_examples=60)
@given(st.sampled_from([case for case in CASES if case[0] in SPLIT_BACKWARD]), st.integers(0, 30))
def test_what_waits_for_the_weights_half_counts_for_itself(case, size):
    """A stage keeps 10 until the gradient of its input is there, then `size` until that of its weights is."""
    schedule, ranks, stages, microbatches = case
    kept = np.full((ranks, stages), 10.0)
    for actions, found in zip(
        schedule_order(schedule, ranks, stages, microbatches),
        peak_held(schedule, ranks, stages, microbatches, kept, np.full((ranks, stages), float(size))),
        strict=True,
    ):
        steps = {"F": 10, "I": size - 10, "W": -size, "B": -10}
        assert found == max(itertools.accumulate(steps[action.kind] for action in actions))


@settings(max_examples=60)
@given(st.sampled_from([case for case in CASES if case[0] in SEVERAL]), st.data())
def test_the_head_is_at_work_only_when_the_last_stage_is(case, data):
    schedule, ranks, stages, microbatches = case
    owners = stage_ranks(schedule, ranks, stages)
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=len(owners), max_size=len(owners)))
    kept = np.array([[sizes[stage] for stage, owner in enumerate(owners) if owner == rank] for rank in range(ranks)])
    last, rank = len(owners) - 1, owners[-1]
    flying, held, most = 0, 0, 0
    for action in schedule_order(schedule, ranks, stages, microbatches)[rank]:
        flying += ((action.kind == "F") - (action.kind in "BI")) * (action.stage == last)
        held += ((action.kind == "F") - (action.kind in "BW")) * sizes[action.stage]
        most = max(most, held if flying else 0)
    assert peak_held(schedule, ranks, stages, microbatches, kept.astype(float), in_last_stage=True)[rank] == most


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_1f1b_holds_as_many_as_ranks_follow_and_interleaving_more(ranks):
    """Narayanan et al. 2021, section 2.2.1; Korthikanti et al. 2022, section 4.2.3: L (1 + (p-1)/(p·v)) layers."""
    assert in_flight("1f1b", ranks, 1, 4 * ranks)[:, 0, 0].tolist() == list(range(ranks, 0, -1))
    held = in_flight("interleaved", ranks, 2, 4 * ranks)[0].sum(-1)
    assert set(held) == {2 * ranks * (1 + (ranks - 1) / (2 * ranks))}
