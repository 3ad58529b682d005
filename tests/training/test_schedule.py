"""Learning-rate schedules: their corners, monotony and units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config import OptimizerConfig, ScheduleConfig
from firstlight.support.errors import ConfigError
from firstlight.training.schedule import learning_rate

OPTIMIZER = OptimizerConfig(lr=1.0, min_lr=0.1)


def curve(total, **schedule):
    return [learning_rate(s, ScheduleConfig(**schedule), OPTIMIZER, total, 10) for s in range(1, total + 1)]


@given(
    st.sampled_from(["cosine", "linear", "wsd", "constant"]),
    st.integers(10, 200),
    st.floats(0, 0.5),
)
def test_rises_to_lr_then_never_rises_again_and_ends_where_it_should(name, total, share):
    warmup = int(share * total)
    rates = curve(total, name=name, warmup_steps=warmup)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert max(rates) <= 1.0
    after = rates[max(0, warmup - 1) :]
    assert after == sorted(after, reverse=True)
    assert rates[-1] == pytest.approx(1.0 if name == "constant" else 0.1)


def test_warm_up_is_linear_and_reaches_lr():
    assert curve(10, name="constant", warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_is_half_way_in_the_middle():
    assert curve(100, name="cosine")[49] == pytest.approx(0.55)


def test_wsd_is_flat_and_then_falls():
    rates = curve(100, name="wsd", warmup_steps=10, decay_steps=20)
    assert set(rates[10:80]) == {1.0}
    assert rates[89] == pytest.approx(0.55)


def test_lengths_in_tokens_are_the_same_as_in_steps():
    in_tokens = curve(100, name="wsd", warmup_tokens=100, decay_tokens=200)
    assert in_tokens == curve(100, name="wsd", warmup_steps=10, decay_steps=20)


def test_decay_may_end_before_training_does():
    rates = curve(100, name="cosine", decay_steps=50)
    assert set(rates[50:]) == {0.1}


@pytest.mark.parametrize(
    ("schedule", "part"),
    [
        ({"name": "cosine", "warmup_steps": 200}, "warm-up of 200 steps is longer than training"),
        ({"name": "wsd", "warmup_steps": 50, "decay_steps": 60}, "decay of at most 50"),
        ({"name": "cosine", "warmup_steps": 50, "decay_steps": 40}, "before the warm-up"),
    ],
)
def test_a_schedule_that_cannot_fit_is_an_error(schedule, part):
    with pytest.raises(ConfigError, match=part):
        curve(100, **schedule)
