"""The keyed permutation: a bijection for any size and key, the same everywhere, without visible structure."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.tokens.permutation import MAX_SIZE, derive_key, permute, place_before

keys = st.integers(min_value=-(2**80), max_value=2**80)


@given(size=st.integers(1, 3000), key=keys)
def test_bijection_of_any_size_and_key(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_bijection_of_every_small_size():
    for size in range(1, 400):
        assert np.array_equal(np.sort(permute(np.arange(size), size, size * 7919)), np.arange(size)), size


def test_bijection_of_a_million_over_several_chunks():
    size = 1_000_003
    assert np.array_equal(np.sort(permute(np.arange(size), size, 5)), np.arange(size))


@given(size=st.integers(1, MAX_SIZE), key=keys, data=st.data())
@settings(max_examples=200)
def test_huge_sizes_stay_in_range_and_distinct(size, key, data):
    first = data.draw(st.integers(0, size - 1))
    index = np.arange(first, min(size, first + 1000), dtype=np.int64)
    result = permute(index, size, key)
    assert result.min() >= 0
    assert result.max() < size
    assert len(np.unique(result)) == len(index)


@given(size=st.integers(1, 10**12), key=keys, data=st.data())
def test_one_index_alone_equals_the_same_index_in_an_array(size, key, data):
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)), dtype=np.int64)
    together = permute(index, size, key)
    assert [permute(int(i), size, key) for i in index] == together.tolist()
    assert np.array_equal(permute(index.reshape(1, -1), size, key), together.reshape(1, -1))


@given(size=st.one_of(st.integers(1, 400), st.integers(1, MAX_SIZE)), key=keys, data=st.data())
def test_backwards_it_gives_the_index_again(size, key, data):
    index = data.draw(st.integers(0, size - 1))
    assert place_before(permute(index, size, key), size, key) == index


def test_shape_and_dtype_are_those_of_an_index():
    assert permute(np.zeros((2, 0), dtype=np.int32), 9, 1).shape == (2, 0)
    assert permute(np.arange(6, dtype=np.int32).reshape(2, 3), 6, 1).dtype == np.int64
    assert isinstance(permute(3, 9, 1), int)


def test_the_argument_is_left_alone():
    index = np.arange(100)
    permute(index, 100, 3)
    assert np.array_equal(index, np.arange(100))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, MAX_SIZE + 1), (5, 5), (-1, 5)])
def test_out_of_range_is_refused(index, size):
    with pytest.raises(ValueError, match="not in"):
        permute(index, size, 1)


def test_different_keys_give_unrelated_orders():
    size = 10_000
    orders = [permute(np.arange(size), size, derive_key("books", epoch)) for epoch in range(6)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.count_nonzero(one == other) < 12  # 1 expected; Poisson(1) ≥ 12 has probability 1e-9
            assert abs(np.corrcoef(one, other)[0, 1]) < 6 / math.sqrt(size)


@pytest.mark.parametrize("size", [256, 1024, 4097, 65536, 1_000_000])
def test_no_trend_and_no_correlation_of_neighbours(size):
    order = permute(np.arange(size), size, derive_key("structure", size)).astype(float)
    bound = 5 / math.sqrt(size)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < bound
    for lag in (1, 2, 3, math.isqrt(size)):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < bound


@pytest.mark.parametrize("size", [4096, 100_003])
def test_neighbouring_pairs_fill_the_plane_evenly(size):
    order = permute(np.arange(size), size, derive_key("plane", size))
    cells = 8
    table = np.zeros((cells, cells))
    np.add.at(table, (order[:-1] * cells // size, order[1:] * cells // size), 1)
    assert _chi_square_excess(table.reshape(-1)) < 5


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_is_about_equally_likely(size):
    seen = Counter(tuple(permute(np.arange(size), size, derive_key("few", n)).tolist()) for n in range(1500))
    counts = list(seen.values()) + [0] * (math.factorial(size) - len(seen))
    assert _chi_square_excess(np.array(counts)) < 5


@pytest.mark.parametrize("size", [10, 17, 100])
def test_every_place_is_about_equally_likely(size):
    counts = np.zeros(size)
    for n in range(1500):
        counts[permute(0, size, derive_key("place", n))] += 1
    assert _chi_square_excess(counts) < 5


def _chi_square_excess(counts):
    """How many standard deviations the chi-square statistic against equal counts lies above its mean."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_keys_depend_on_every_part_its_type_and_its_borders():
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("abc", 0), (0, "abc"), ("1",), (1,), (-1,), (1, 1), (11,), ("1", "1")]
    assert len({derive_key(*p) for p in parts}) == len(parts)


def test_the_order_of_data_never_changes_between_releases_or_processes():
    code = "from firstlight.tokens.permutation import *; import numpy as np; k = derive_key(1234, 'books', 0); "
    code += "print(k, permute(np.arange(10), 10, k).tolist(), permute(10**12, 10**13, k))"
    expected = "15687848414548774896 [2, 5, 9, 4, 6, 7, 8, 3, 1, 0] 7017483331970"
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}, check=True
        )
        assert done.stdout.strip() == expected
