"""Megatron-LM's order, by what it promises: passes, the last of them apart where it is short, a rhythm.

That it is sample for sample Megatron-LM's is shown in test_megatron_peer.py, where megatron-core can be installed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.indexed import IndexedWriter
from firstlight.tokens.megatron_blend import Blend, blend_of, rhythm
from firstlight.tokens.megatron_order import build_order, passes_of
from firstlight.tokens.megatron_stream import MegatronStream
from firstlight.tokens.prefix import PrefixDataset

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda lengths: sum(lengths) > 9)


@given(lengths=LENGTHS, samples=st.integers(1, 300), length=st.integers(2, 9), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_samples_tile_passes_that_hold_every_sequence_once(lengths, samples, length, seed):
    sizes = np.array(lengths, np.int32)
    plan = passes_of(int(sizes.sum()), length, samples)
    order = build_order(sizes, plan, seed)
    assert plan.samples >= samples
    assert (plan.passes - 1) * plan.tokens < samples * length + 1 <= plan.passes * plan.tokens
    passes = plan.passes - plan.last_apart
    first, last = np.split(order.document_index, [passes * len(sizes)])
    assert np.array_equal(np.bincount(first, minlength=len(sizes)), np.full(len(sizes), passes))
    assert np.array_equal(np.sort(last), np.arange(len(sizes) if plan.last_apart else 0))
    ends = np.cumsum(sizes[order.document_index], dtype=np.int64)
    place, offset = order.sample_index.T.astype(np.int64)
    starts = ends[place] - sizes[order.document_index][place] + offset
    assert np.array_equal(starts, np.arange(plan.samples + 1) * length)
    assert (offset[1:] < sizes[order.document_index][place[1:]]).all(), "a sample begins at a token of its sequence"
    first = plan.samples_together
    assert np.array_equal(np.sort(order.shuffle_index[:first]), np.arange(first))
    assert np.array_equal(np.sort(order.shuffle_index[first:]), np.arange(first, plan.samples))


@pytest.mark.parametrize(("requested", "passes", "apart"), [(None, 1, False), (99, 1, False), (100, 2, True)])
def test_the_passes_are_the_fewest_that_give_the_samples_and_a_last_target(requested, passes, apart):
    plan = passes_of(1000, 10, requested)
    assert (plan.passes, plan.last_apart) == (passes, apart)


@pytest.mark.parametrize(("requested", "apart"), [(99 + 78, True), (99 + 79, False)])
def test_the_last_pass_is_apart_below_four_fifths_of_its_samples(requested, apart):
    assert passes_of(1000, 10, requested).last_apart is apart


def test_a_pass_that_is_apart_is_read_last(tmp_path):
    with IndexedWriter(tmp_path / "p", np.uint16) as writer:
        for number in range(50):
            writer.add_document(np.full(20, number))
    split = PrefixDataset(tmp_path / "p").whole()
    stream = MegatronStream({"a": split}, DataConfig(sequence_length=10, order="megatron"), 1, 120)
    ids = stream.samples(0, stream.num_samples)
    assert set(ids.sequence[:99]) == set(range(99))
    assert set(ids.sequence[99:]) == set(range(99, 199))


@given(weights=st.lists(st.floats(0.01, 10), min_size=2, max_size=6), samples=st.integers(1, 400))
@settings(max_examples=60)
def test_the_rhythm_follows_the_weights_and_numbers_the_samples_of_each_source(weights, samples):
    mixture = {f"s{number}": weight for number, weight in enumerate(weights)}
    blend = blend_of(DataConfig(order="megatron", mixture=mixture), dict.fromkeys(mixture, 10**6), samples)
    source, before = rhythm(blend)
    assert samples <= len(source) <= samples + len(weights), "each share is rounded up, 7.000…1 to 8"
    for number, share in enumerate(blend.weights):
        mine = np.flatnonzero(source == number)
        assert np.array_equal(before[mine], np.arange(len(mine)))
        counts = np.cumsum(source == number)
        assert np.abs(counts - share * np.arange(1, len(source) + 1)).max() < len(weights)


def test_a_run_too_short_for_a_share_is_refused(tmp_path):
    with IndexedWriter(tmp_path / "p", np.uint16) as writer:
        writer.add_document(np.arange(21))
    mixture = {"a": 1.0, "b": 8.0, "c": 0.5, "d": 1.0}
    splits = {name: PrefixDataset(tmp_path / "p").whole() for name in mixture}
    data = DataConfig(sequence_length=10, order="megatron", mixture=mixture)
    with pytest.raises(
        ConfigError, match="the blend draws 3 samples of 'b', which was asked for 2: the run is too short"
    ):
        MegatronStream(splits, data, 1, 1).samples(0, 1)


def test_compiled_or_not_the_rhythm_is_the_same(monkeypatch):
    pytest.importorskip("numba")
    blend = Blend(("a", "b", "c"), (None,) * 3, (0.1, 0.2, 0.7), 3000, ())
    slow = rhythm(blend)
    monkeypatch.setattr("firstlight.tokens.megatron_blend.COMPILED_FROM", 1)
    for one, other in zip(slow, rhythm(blend), strict=True):
        assert np.array_equal(one, other)


def test_without_weights_nothing_is_read_twice():
    data = DataConfig(sequence_length=10, order="megatron")
    assert blend_of(data, {"a": 101, "b": 301}, 40).requested == (None, None)
    with pytest.raises(ConfigError, match=r"40 samples of 10 tokens, and the run asks for 41; give data\.mixture"):
        blend_of(data, {"a": 101, "b": 301}, 41)
    assert blend_of(data, {"a": 101}, 41).weights is None, "one source alone may be gone over again"


@pytest.fixture
def two(tmp_path):
    generator = np.random.default_rng(3)
    for name in ("a", "b"):
        with IndexedWriter(tmp_path / name, np.int32) as writer:
            for _ in range(60):
                writer.add_document(generator.integers(0, 200, generator.integers(0, 30)))
    return {name: PrefixDataset(tmp_path / name).whole() for name in ("a", "b")}


def stream(two, samples=150, **more):
    data = DataConfig(sequence_length=16, order="megatron", mixture={"a": 3, "b": 1})
    return MegatronStream(two, data, 1234, samples, 200, **more)


def test_any_part_can_be_read_alone_and_begins_again_after_the_last(two):
    one = stream(two)
    rows = one.read(0, one.num_samples)
    assert np.array_equal(one.read(40, 13), rows[40:53])
    assert np.array_equal(one.read(one.num_samples - 2, 5), np.concatenate([rows[-2:], rows[:3]]))


def test_a_sample_begins_where_it_says(two):
    one = stream(two)
    for sample in range(30):
        source = one.sources[int(one.samples(sample, 1).source[0])]
        assert one.split(source).read(one.first_token(sample), 1)[0] == one.read(sample, 1)[0, 0]


def test_files_are_made_once_and_read_as_memory_is(two, tmp_path):
    kept = {"directory": tmp_path / "data", "identities": {"a": "1", "b": "2"}}
    with pytest.raises(DataError, match="a disk that all machines of the run share"):
        stream(two, **kept).read(0, 1)
    stream(two, **kept).prepare()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.npy")}
    assert len(made) == 8
    again = stream(two, **kept)
    again.prepare()
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.npy")}
    assert np.array_equal(again.read(0, 150), stream(two).read(0, 150))
    assert not list((tmp_path / "data").glob(".*"))
    stream(two, **{**kept, "identities": {"a": "1", "b": "3"}}).prepare()
    assert len(list((tmp_path / "data").glob("megatron-order-b-*"))) == 2


def test_an_id_outside_the_vocabulary_is_named_where_it_lies(two):
    data = DataConfig(sequence_length=16, order="megatron")
    with pytest.raises(DataError, match=r"source 'a': token id \d+ at .*a\.bin, token [\d,]+ is outside .* of 150"):
        MegatronStream({"a": two["a"]}, data, 1234, 30, 150).read(0, 30)


def test_the_supply_and_what_a_resumed_run_has_to_find_again(two):
    with pytest.raises(ConfigError, match=r"above data\.max_epochs 4"):
        stream(two, samples=2000).check_supply(2000)
    stream(two, samples=150).check_supply(150)
    assert stream(two, samples=150).record("a") == stream(two, samples=151).record("a")
    assert stream(two, samples=150).record("a") != stream(two, samples=15).record("a")


def test_seeds_that_numpy_does_not_take_are_refused():
    with pytest.raises(ConfigError, match="seed is -1"):
        build_order(np.array([30], np.int32), passes_of(30, 4, 3), -1)
    with pytest.raises(DataError, match="sum to 30 tokens, but there are 31"):
        build_order(np.array([30], np.int32), passes_of(31, 4, 3), 1)
