"""The scale follows Megatron-LM's rule for any sequence of overflows, across a save, and stops when it cannot help."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from firstlight.config.loss_scale import LossScaleConfig
from firstlight.support.errors import DivergedError
from firstlight.training.loss_scale import STUCK_STEPS, LossScale

CONFIGS = st.builds(
    LossScaleConfig,
    initial=st.integers(6, 30).map(lambda power: 2.0**power),
    growth_interval=st.integers(1, 5),
    hysteresis=st.integers(1, 4),
    minimum=st.sampled_from([0.5, 1.0, 64.0]),
)
OVERFLOWS = st.lists(st.booleans(), max_size=60)


def megatrons_rule(config, overflows):
    """The scale after a history, from the history alone: a run of clean steps doubles it, and an overflow halves it
    when at least `hysteresis` of them lie since the last doubling, itself included."""
    scale, since_growth, clean = config.initial, 0, 0
    for overflow in overflows:
        if overflow:
            clean, since_growth = 0, since_growth + 1
            if since_growth >= config.hysteresis:
                scale = max(scale / 2, config.minimum)
        else:
            clean += 1
            if clean == config.growth_interval:
                scale, clean, since_growth = scale * 2, 0, 0
    return scale


def feed(loss_scale, overflows):
    """Tell it a history; False where it gave up."""
    try:
        for overflow in overflows:
            loss_scale.update(overflow)
    except DivergedError:
        return False
    return True


@given(CONFIGS, OVERFLOWS)
def test_the_scale_is_that_of_megatron(config, overflows):
    loss_scale = LossScale(config, step_tokens=1)
    if feed(loss_scale, overflows):
        assert loss_scale.scale == megatrons_rule(config, overflows)
        assert loss_scale.skipped_steps == sum(overflows)
    else:
        assert loss_scale.scale == config.minimum


@given(CONFIGS, OVERFLOWS, OVERFLOWS)
def test_a_saved_scale_goes_on_as_if_nothing_had_happened(config, before, after):
    whole, first = LossScale(config, step_tokens=1), LossScale(config, step_tokens=1)
    if not feed(first, before) or not feed(whole, before):
        return
    resumed = LossScale(config, step_tokens=1)
    resumed.load(json.loads(json.dumps(first.state())))
    assert feed(whole, after) == feed(resumed, after)
    assert resumed.state() == whole.state()


def test_two_overflows_halve_and_then_each_one_does_until_it_grows():
    loss_scale = LossScale(LossScaleConfig(initial=256, growth_interval=2), step_tokens=1)
    scales = []
    for overflow in (True, False, True, True, False, False, True, True):
        loss_scale.update(overflow)
        scales.append(loss_scale.scale)
    assert scales == [256, 256, 128, 64, 64, 128, 128, 64]


@pytest.mark.parametrize(("tokens", "scale"), [(1, 2.0**12), (3 * 2**14, 2.0**27), (2**20, 2.0**32)])
def test_the_first_scale_follows_the_tokens_of_a_step(tokens, scale):
    assert LossScale(LossScaleConfig(), tokens).scale == scale
    assert LossScale(LossScaleConfig(initial=8), tokens).scale == 8


def test_it_never_falls_below_the_minimum_and_stops_when_that_does_not_help():
    loss_scale = LossScale(LossScaleConfig(initial=8, hysteresis=1, minimum=4), step_tokens=1)
    loss_scale.update(True)
    for _ in range(STUCK_STEPS - 1):
        loss_scale.update(True)
        assert loss_scale.scale == 4
    with pytest.raises(DivergedError, match="10 steps in a row at the smallest loss scale"):
        loss_scale.update(True)


def test_one_clean_step_starts_the_count_anew():
    loss_scale = LossScale(LossScaleConfig(initial=1, hysteresis=1), step_tokens=1)
    for _ in range(3):
        assert feed(loss_scale, [True] * (STUCK_STEPS - 1))
        loss_scale.update(False)


def test_an_initial_scale_below_the_minimum_is_refused():
    with pytest.raises(ValidationError, match="initial 2 is below minimum 4"):
        LossScaleConfig(initial=2, minimum=4)
