"""The law of repeated data: the published values, and the shape that makes it a law of diminishing returns."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning.repeated_data import (
    DECAY_REPETITIONS,
    UNREPEATED,
    effective_parameters,
    effective_tokens,
    loss,
    optimum,
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


def test_the_published_unit_tests_of_the_whole_law():
    """The authors' repository prints these digits."""
    assert loss(6.34e9, 242e9, 25e9) == pytest.approx(2.2256440889984477, rel=1e-15)
    assert loss(8.67e9, 178e9, 25e9) == pytest.approx(2.2269634075087867, rel=1e-15)
    tried = [1.0001 + step * (3 - 1.0001) / 499 for step in range(500)]
    best = optimum(1e22, 25e9, tried)
    assert best.tokens == pytest.approx(237336955477.55075, rel=1e-12)
    assert best.parameters == pytest.approx(7022364735.879969, rel=1e-12)


@given(parameters=st.floats(1e7, 1e12), unique=st.floats(1e9, 1e13), share=st.floats(0.01, 1))
def test_text_that_is_read_once_by_a_model_it_can_fill_has_the_law_of_new_text(parameters, unique, share):
    filled = UNREPEATED.frontier.for_parameters(parameters).tokens
    tokens = max(filled, unique * share)
    assert loss(parameters, tokens, max(tokens, unique)) == pytest.approx(UNREPEATED.loss(parameters, tokens))


@given(parameters=st.floats(1e7, 1e12), tokens=st.floats(1e9, 1e13), passes=st.floats(1, 100))
def test_repeated_text_is_never_better_than_new_text(parameters, tokens, passes):
    assert loss(parameters, tokens, tokens / passes) >= loss(parameters, tokens, tokens) * (1 - 1e-12)


@given(parameters=st.floats(1e7, 1e13), unique=st.floats(1e8, 1e13))
def test_no_more_parameters_count_than_there_are(parameters, unique):
    assert effective_parameters(parameters, unique) <= parameters * (1 + 1e-12)


@given(power=st.floats(18, 25), unique=st.floats(1e9, 1e12), factor=st.floats(0.2, 5))
def test_the_optimum_on_little_text_is_one_and_reads_more_than_without_repetition(power, unique, factor):
    best, free = optimum(10**power, unique), UNREPEATED.optimum(10**power)
    assert best.flops == pytest.approx(10**power)
    assert best.tokens >= free.tokens * (1 - 1e-9)
    if best.tokens * factor >= free.tokens and free.tokens > unique:
        here = loss(best.parameters, best.tokens, unique)
        assert loss(best.parameters / factor, best.tokens * factor, unique) >= here * (1 - 1e-9)
