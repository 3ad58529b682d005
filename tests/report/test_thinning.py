"""Fewer points that look the same: of every bucket the lowest and the highest, whatever the curve."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from firstlight.report.thinning import KEPT_WHOLE, bucket_starts, thin

CURVES = st.tuples(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 2**32 - 1))


@given(CURVES)
def test_every_bucket_keeps_its_lowest_and_its_highest(drawn: tuple[int, int, int]) -> None:
    count, buckets, seed = drawn
    draw = np.random.default_rng(seed)
    steps = np.cumsum(draw.integers(1, 5, count))
    values = np.round(draw.normal(size=count), 1)  # with equal ones among them
    curve = thin(steps, values, buckets)
    kept = dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
    bounds = [*bucket_starts(count, buckets), count]
    for first, end in itertools.pairwise(bounds):
        inside = [kept[step] for step in steps[first:end].tolist() if step in kept]
        assert min(inside) == values[first:end].min() and max(inside) == values[first:end].max()
    assert kept.items() <= dict(zip(steps.tolist(), values.tolist(), strict=True)).items()
    assert list(kept) == sorted(kept) and steps[0] in kept and steps[-1] in kept
    assert len(kept) <= max(KEPT_WHOLE + 2 * buckets + 1, 1)


@given(CURVES)
def test_means_weigh_every_point_once(drawn: tuple[int, int, int]) -> None:
    count, buckets, seed = drawn
    values = np.random.default_rng(seed).normal(size=count)
    curve = thin(np.arange(count), values, buckets)
    sizes = np.diff([*bucket_starts(count, buckets), count])
    assert np.isclose((curve.mean_values * sizes).sum(), values.sum())
    assert curve.bucket == sizes.max()


def test_one_spike_among_a_hundred_thousand_is_drawn() -> None:
    values = np.ones(100_000)
    values[54_321] = 9.0
    curve = thin(np.arange(100_000), values, 300)
    assert 54_321 in curve.steps and curve.values.max() == 9.0 and len(curve.steps) < 1000
