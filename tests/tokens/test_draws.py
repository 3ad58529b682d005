"""Draws are splitmix64's own numbers, each computed without the others; probabilities and ranges are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.tokens.draws import below, choices, draw, fractions

N = 1_000_000


@pytest.fixture(scope="module")
def words():
    return draw(7, np.arange(N))


def test_the_published_numbers():
    """The first outputs for seed 1234567, as implementations of splitmix64 quote them."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draw(1234567, np.arange(4)).tolist() == expected


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(0, 2**62), min_size=1, max_size=6))
def test_a_number_does_not_depend_on_what_is_drawn_with_it(key, counters):
    together = draw(key, np.array(counters))
    assert together.tolist() == [int(draw(key, np.array([counter]))[0]) for counter in counters]
    keys = np.array([key % 2**64], dtype=np.uint64)
    assert draw(keys[:, None], np.array(counters)[None])[0].tolist() == together.tolist()


def test_numbers_of_a_stream_and_of_neighbouring_streams_do_not_repeat(words):
    assert len(np.unique(words)) == N
    streams = draw(draw(7, np.arange(1000))[:, None], np.arange(1000)[None])
    assert len(np.unique(streams)) == N


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.5, 0.9, 1.0])
def test_a_probability_is_the_share_of_hits(words, probability):
    sigma = (probability * (1 - probability) / N) ** 0.5
    assert below(words, probability).mean() == pytest.approx(probability, abs=3 * sigma)


def test_fractions_and_choices_are_even(words):
    uniform = fractions(words)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=3 * (1 / 12 / N) ** 0.5)
    counts = np.bincount(choices(words, 1000), minlength=1000)
    assert len(counts) == 1000
    chi_square = ((counts - N / 1000) ** 2).sum() / (N / 1000)
    assert abs(chi_square - 999) < 4 * (2 * 999) ** 0.5
