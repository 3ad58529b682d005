"""The law of repeated data: the published values, and the shape that makes it a law of diminishing returns."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning.repeated_data import (
    DECAY_REPETITIONS,
    effective_tokens,
    value_lost,
    value_of_next_token,
    verdict,
)

tokens = st.floats(1, 1e15)
epochs = st.floats(0, 1e4)


@pytest.mark.parametrize(
    ("passes", "worth"),
    [(2, 1.968), (3, 2.875), (4, 3.726), (5, 4.522), (8, 6.624), (16, 10.58), (40, 15.17), (100, 16.36)],
)
def test_it_gives_the_values_of_the_published_constant(passes, worth):
    assert effective_tokens(1, passes) == pytest.approx(worth, abs=0.005)


@given(unique=tokens, read=st.floats(0, 1))
def test_what_is_not_repeated_is_worth_itself(unique, read):
    assert effective_tokens(unique, read) == unique * read
    assert value_lost(read) == 0
    assert value_of_next_token(read) == 1


@given(unique=tokens, less=epochs, more=epochs)
def test_more_passes_are_worth_more_and_never_as_much_as_new_text(unique, less, more):
    less, more = sorted((less, more))
    low, high = effective_tokens(unique, less), effective_tokens(unique, more)
    assert low <= high * (1 + 1e-12)
    assert high - low <= unique * (more - less) * (1 + 1e-9) + unique * 1e-9
    assert high <= unique * (1 + DECAY_REPETITIONS) * (1 + 1e-12)
    assert 0 <= value_lost(more) < 1
    assert value_lost(less) <= value_lost(more) + 1e-12


@given(passes=st.floats(1, 200))
def test_the_value_of_the_next_token_is_the_slope(passes):
    step = 1e-4
    slope = (effective_tokens(1, passes + step) - effective_tokens(1, passes)) / step
    assert slope == pytest.approx(value_of_next_token(passes + step / 2), rel=1e-5, abs=1e-9)


def test_after_the_decay_constant_a_token_is_worth_1_over_e():
    assert value_of_next_token(1 + DECAY_REPETITIONS) == pytest.approx(1 / math.e)


def test_the_verdict_follows_the_lines_of_the_paper():
    words = [verdict(passes) for passes in (0, 0.5, 1, 4, 4.1, 16, 17, 40, 41)]
    assert words == [
        *("not read", "read in part", "new", "nearly as new", "worth less", "worth less"),
        *("worth little", "worth little", "worth nothing"),
    ]
