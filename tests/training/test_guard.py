"""The guard lets ordinary training pass, stops what is far out of line, and forgets nothing over a resume."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config import StabilityConfig
from firstlight.training.guard import Guard


def ordinary(steps: int, seed: int = 0, noise: float = 0.05) -> list[tuple[float, float]]:
    """(loss, gradient norm) of a run that learns: a falling loss with noise, norms that vary by factors."""
    draw = random.Random(seed)
    curve = []
    for step in range(steps):
        loss = 2.5 + 7 * math.exp(-step / 40) + draw.gauss(0, noise)
        curve.append((loss, math.exp(draw.gauss(0.5 * math.exp(-step / 30), 0.3))))
    return curve


def trained(steps: int = 200, **settings: object) -> Guard:
    guard = Guard(StabilityConfig(**settings))
    for loss, norm in ordinary(steps):
        assert guard.judge(loss, norm).accepted
    return guard


@given(st.integers(0, 10_000), st.sampled_from([0.002, 0.05, 0.2]))
def test_ordinary_training_is_accepted(seed: int, noise: float) -> None:
    guard = Guard(StabilityConfig())
    verdicts = [guard.judge(loss, norm) for loss, norm in ordinary(300, seed, noise)]
    assert all(verdict.accepted for verdict in verdicts)
    assert guard.calm


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (7.0, 1.5, "loss"),
        (2.5, 50.0, "grad_norm"),
        (math.nan, 1.0, "not finite"),
        (2.5, math.inf, "not finite"),
        (math.inf, math.nan, "not finite"),
    ],
)
def test_what_is_far_out_of_line_is_not(loss: float, norm: float, reason: str) -> None:
    guard = trained()
    verdict = guard.judge(loss, norm)
    assert not verdict.accepted
    assert verdict.reason == reason
    if verdict.limit is not None:
        assert 2.5 < verdict.limit < 50
    assert not guard.calm


def test_what_is_rejected_does_not_move_the_limits() -> None:
    guard = trained()
    limit = guard.judge(9.0, 1.0).limit
    for loss in (9.0, math.nan, 100.0, math.inf):
        for _ in range(3):
            guard.judge(loss, math.nan if loss == 100.0 else 1.0)
    assert guard.judge(9.0, 1.0).limit == limit
    assert all(math.isfinite(number) for key in ("losses", "log_grad_norms") for number in guard.state()[key])


def test_the_first_steps_are_not_compared_but_must_be_finite() -> None:
    guard = Guard(StabilityConfig(least_steps=8))
    for loss in (10.0, 30.0, 2.0, 50.0, 1.0, 9.0, 11.0):
        assert guard.judge(loss, 1.0).accepted
    assert not guard.judge(math.nan, 1.0).accepted


def test_it_gives_up_after_so_many_in_a_row_and_one_good_step_begins_anew() -> None:
    guard = trained(rollback_after=4)
    for _ in range(3):
        guard.judge(9.0, 1.0)
    assert not guard.gives_up
    assert guard.judge(2.5, 1.0).accepted
    for _ in range(4):
        assert not guard.gives_up
        guard.judge(9.0, 1.0)
    assert guard.gives_up
    assert guard.skipped_steps == 7


def test_a_checkpoint_is_good_after_as_many_quiet_steps_as_it_takes_to_give_up() -> None:
    guard = trained(rollback_after=4)
    guard.judge(9.0, 1.0)
    for quiet in range(4):
        assert guard.calm == (quiet >= 4)
        guard.judge(2.5, 1.0)
    assert guard.calm


def test_other_data_begins_a_new_window() -> None:
    guard = Guard(StabilityConfig(least_steps=8), changes=[1000])
    for _ in range(20):
        guard.judge(2.0, 1.0, first_sample=0)
    assert not guard.judge(6.0, 1.0, first_sample=999).accepted
    assert guard.judge(6.0, 1.0, first_sample=1000).accepted


@given(st.integers(0, 260), st.booleans())
def test_a_resumed_guard_goes_on_as_the_other(cut: int, wild: bool) -> None:
    curve = ordinary(260)
    if wild:
        curve[150:180] = [(9.0, 1.0)] * 15 + [(math.nan, math.nan)] * 15
    whole, first = Guard(StabilityConfig(window_steps=64)), Guard(StabilityConfig(window_steps=64))
    expected = [whole.judge(*step) for step in curve]
    found = [first.judge(*step) for step in curve[:cut]]
    second = Guard(StabilityConfig(window_steps=64))
    second.load(json.loads(json.dumps(first.state())))
    found += [second.judge(*step) for step in curve[cut:]]
    assert found == expected
    assert second.state() == whole.state()


def test_going_back_keeps_count() -> None:
    guard = trained(rollback_after=4, max_rollbacks=2)
    before = json.loads(json.dumps(guard.state()))
    for expected in (1, 2):
        for _ in range(4):
            guard.judge(9.0, 1.0)
        assert guard.gives_up
        assert guard.why_not_back(100) == ""
        guard.go_back(before)
        assert (guard.rollbacks, guard.in_a_row, guard.skipped_steps) == (expected, 0, 4 * expected)
        assert not guard.gives_up
    assert "2 times" in guard.why_not_back(100)
    assert "no checkpoint" in trained().why_not_back(None)


def test_without_the_guard_only_numbers_that_are_not_finite_stop() -> None:
    guard = trained(guard=False)
    assert guard.judge(1e6, 1e6).accepted
    assert not guard.judge(math.nan, 1.0).accepted
    assert guard.gives_up
    assert "guard is false" in guard.why_not_back(100)
