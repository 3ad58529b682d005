"""The mixture: exact shares at block boundaries, consecutive ordinals, any position on its own, clear errors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError
from firstlight.tokens.mixture import MAX_BLOCK_SIZE, Mixture, Stage, mixture_notes, shares, stages_of

TOTAL = 800

names = st.sampled_from(["web", "books", "code", "wikipedia", "academic"])
weights = st.dictionaries(names, st.decimals("0.01", "9.99", places=2).map(float), min_size=1)


@st.composite
def mixtures(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, TOTAL - 100), max_size=3)))]
    stages = [Stage(start, shares(draw(weights))) for start in starts]
    return Mixture(stages, seed=draw(st.integers(0, 2**64)), block_size=draw(st.integers(1, 200)))


def one_stage(given_weights, **settings):
    return Mixture([Stage(0, shares(given_weights))], **{"seed": 1, "block_size": 100, **settings})


@given(weights=weights, block=st.integers(0, 10**13), block_size=st.integers(1, 3000))
def test_every_source_has_its_share_at_every_block_boundary(weights, block, block_size):
    mixture = one_stage(weights, block_size=block_size)
    position = block * mixture.block_size
    counts = mixture.counts(position)
    assert sum(counts.values()) == position
    for source, share in shares(weights).items():
        assert abs(counts[source] - share * position) < 1


@given(mixtures())
@settings(max_examples=30)
def test_every_prefix_holds_the_weights_within_its_block(mixture):
    numbers, _ = mixture.sources_of(0, TOTAL)
    stages = mixture.stages
    for place, source in enumerate(mixture.sources):
        counted = np.concatenate([[0], np.cumsum(numbers == place)])
        for stage, end in zip(stages, [*(s.first_sample for s in stages[1:]), TOTAL], strict=True):
            share = stage.shares.get(source, Fraction(0))
            positions = np.arange(min(end, TOTAL) - stage.first_sample + 1)
            drawn = counted[stage.first_sample :][: len(positions)] - counted[stage.first_sample]
            # At most one from the boundary before, and at most B·max(w, 1 − w) + 1 inside a block.
            bound = 2 + mixture.block_size * float(max(share, 1 - share))
            assert np.abs(drawn - float(share) * positions).max() <= bound
            boundaries = positions[:: mixture.block_size]
            assert np.abs(drawn[boundaries] - float(share) * boundaries).max() < 1 + 1e-9
            if not share:
                assert drawn[-1] == 0


@given(mixtures())
@settings(max_examples=30)
def test_ordinals_of_a_source_are_consecutive_over_blocks_and_stages(mixture):
    numbers, ordinals = mixture.sources_of(0, TOTAL)
    for place in range(len(mixture.sources)):
        mine = ordinals[numbers == place]
        assert np.array_equal(mine, np.arange(len(mine)))


@given(mixtures(), st.integers(0, TOTAL - 200), st.integers(0, 200))
@settings(max_examples=40)
def test_any_part_alone_equals_that_part_of_the_whole(mixture, first, count):
    numbers, ordinals = mixture.sources_of(0, TOTAL)
    part_numbers, part_ordinals = mixture.sources_of(first, count)
    assert np.array_equal(part_numbers, numbers[first : first + count])
    assert np.array_equal(part_ordinals, ordinals[first : first + count])


@given(mixtures(), st.integers(0, TOTAL))
@settings(max_examples=40)
def test_counts_are_what_the_stream_holds(mixture, position):
    numbers, _ = mixture.sources_of(0, position)
    counted = np.bincount(numbers, minlength=len(mixture.sources))
    assert list(mixture.counts(position).values()) == counted.tolist()


@given(weights=weights, first=st.integers(10**13, 10**15))
def test_far_positions_are_exact(weights, first):
    mixture = one_stage(weights)
    numbers, ordinals = mixture.sources_of(first, 300)
    before = list(mixture.counts(first).values())
    for place in range(len(mixture.sources)):
        mine = ordinals[numbers == place]
        assert mine.tolist() == list(range(before[place], before[place] + len(mine)))


@given(weights=weights, seed=st.integers(0, 1000))
def test_the_order_in_which_sources_are_listed_does_not_matter(weights, seed):
    turned = dict(reversed(weights.items()))
    one, other = one_stage(weights, seed=seed), one_stage(turned, seed=seed)
    assert one.sources == other.sources
    assert np.array_equal(one.sources_of(0, 500)[0], other.sources_of(0, 500)[0])


def test_decimals_count_as_they_are_written():
    assert shares({"a": 0.1, "b": 0.2, "c": 0.7}) == {"a": Fraction(1, 10), "b": Fraction(2, 10), "c": Fraction(7, 10)}
    mixture = one_stage({"a": 0.1, "b": 0.2, "c": 0.7}, block_size=10)
    assert mixture.block_size == 10
    for block in range(50):
        assert np.bincount(mixture.sources_of(block * 10, 10)[0]).tolist() == [1, 2, 7]


def test_order_inside_blocks_depends_on_seed_and_block():
    half = {"a": 1, "b": 1}
    stream = one_stage(half).sources_of(0, 1000)[0]
    assert not np.array_equal(stream, one_stage(half, seed=2).sources_of(0, 1000)[0])
    assert not np.array_equal(stream[:100], stream[100:200])
    assert abs(np.corrcoef(stream[:-1], stream[1:])[0, 1]) < 0.2


def test_a_rare_source_doubles_the_block_and_is_drawn_once_in_it():
    mixture = one_stage({"common": 0.999, "rare": 0.001}, block_size=300)
    assert mixture.block_size == 1200
    numbers, _ = mixture.sources_of(0, 120_000)
    assert np.count_nonzero(numbers == mixture.sources.index("rare")) == 120


def test_a_share_too_small_to_mix_is_refused():
    with pytest.raises(ConfigError, match="share of 'speck'"):
        one_stage({"common": 1.0, "speck": 0.5 / MAX_BLOCK_SIZE})
    with pytest.raises(ConfigError, match="mixture_block_size"):
        one_stage({"common": 1.0}, block_size=MAX_BLOCK_SIZE + 1)


@pytest.mark.parametrize("weight", [0.0, -0.5, float("nan"), float("inf")])
def test_a_weight_is_above_zero_and_finite(weight):
    with pytest.raises(ConfigError, match=r"data\.mixture\.books is .*above 0"):
        stages_of(DataConfig(mixture={"books": weight, "web": 1.0}), {"books": 9, "web": 9})


def test_an_unknown_source_is_named_with_the_nearest_known():
    with pytest.raises(ConfigError, match=r"names 'boks', which has no tokens\. Did you mean 'books'"):
        stages_of(DataConfig(mixture={"boks": 1.0}), {"books": 9, "web": 9})


def test_no_source_at_all_is_one_sentence():
    with pytest.raises(ConfigError, match=r"data\.mixture is empty"):
        stages_of(DataConfig(), {})


def test_an_empty_mixture_is_in_proportion_to_tokens():
    stages = stages_of(DataConfig(), {"books": 300, "web": 100})
    assert stages == [Stage(0, {"books": Fraction(3, 4), "web": Fraction(1, 4)})]


def later(start_tokens, **mixture):
    return {"start_tokens": start_tokens, "mixture": mixture}


def test_stages_begin_at_whole_samples_and_may_leave_a_source_out():
    data = DataConfig(
        sequence_length=10,
        mixture={"books": 1.0, "web": 3.0},
        mixture_stages=[later(401, books=1.0), later(500, web=1)],
    )
    stages = stages_of(data, {"books": 300, "web": 100})
    assert [stage.first_sample for stage in stages] == [0, 41, 50]
    mixture = Mixture(stages, seed=1, block_size=4)
    numbers, _ = mixture.sources_of(0, 60)
    assert np.bincount(numbers[:40]).tolist() == [10, 30]
    assert mixture.sources == ("books", "web")
    assert set(numbers[41:50].tolist()) == {0}
    assert set(numbers[50:].tolist()) == {1}


def test_stages_that_fall_on_the_same_sample_are_refused():
    data = DataConfig(sequence_length=10, mixture_stages=[later(401, books=1.0), later(402, web=1.0)])
    with pytest.raises(ConfigError, match=r"data\.mixture_stages\[1\]\.mixture starts at 402 tokens = sample 41"):
        stages_of(data, {"books": 300, "web": 100})


def test_notes_say_what_was_derived():
    tokens = {"books": 300, "web": 100, "idle": 5}
    data = DataConfig(
        sequence_length=10,
        mixture={"books": 0.5, "web": 0.6},
        mixture_stages=[later(401, books=0.5, web=0.5)],
        mixture_block_size=1,
    )
    notes = "\n".join(mixture_notes(data, Mixture(stages_of(data, tokens), 1, 1), tokens))
    assert "weights sum to 1.1 and were normalised: books 0.4545, web 0.5455" in notes
    assert "starts at 410 tokens" in notes
    assert "raised from 1 to 4" in notes
    assert "weight to idle" in notes


def test_no_note_without_a_reason():
    tokens = {"books": 1, "web": 1}
    data = DataConfig(mixture={"books": 0.25, "web": 0.75})
    assert mixture_notes(data, Mixture(stages_of(data, tokens), 1), tokens) == []
