"""Stages are dealt out as well as any split could be, and costs add up to the model's."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.planning.flops import training_flops_per_token
from firstlight.planning.pipeline import LayerCosts, split_layers, stage_costs
from firstlight.planning.schedules import stage_ranks
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError

PLACEMENTS = [("1f1b", 1, 1), ("1f1b", 3, 1), ("1f1b", 4, 1), ("interleaved", 2, 2), ("zbv", 2, 2), ("zbv", 3, 2)]
WHOLE = st.integers(0, 40).map(float)


def counts(costs, ranks):
    return [len(blocks) for blocks in split_layers(costs, ranks)]


def quality(costs, ranks, sizes):
    """(costliest rank, costliest stage), and the sum of squares that tells even from uneven."""
    stages = costs.of_stages([range(size) for size in sizes])
    of_rank = [sum(c for c, r in zip(stages, ranks, strict=True) if r == rank) for rank in set(ranks)]
    return (max(of_rank), max(stages)), sum(cost**2 for cost in of_rank)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACEMENTS), st.integers(0, 6), st.integers(1, 12).map(float), WHOLE, WHOLE)
def test_no_split_is_better(placement, more, block, embedding, head):
    ranks = stage_ranks(*placement)
    costs = LayerCosts(embedding, block, len(ranks) + more, head)
    ends = itertools.combinations(range(1, costs.num_blocks + 1), len(ranks) - 1)
    every = [tuple(b - a for a, b in itertools.pairwise((0, *cut, costs.num_blocks))) for cut in ends]
    chosen = counts(costs, ranks)
    assert quality(costs, ranks, chosen)[0] == min(quality(costs, ranks, sizes)[0] for sizes in every)
    with_block = [sizes for sizes in every if sizes[-1]]
    assert chosen[-1] or quality(costs, ranks, chosen)[0] < min(quality(costs, ranks, s)[0] for s in with_block)
    if len(set(ranks)) == len(ranks):
        equals = [s for s in every if bool(s[-1]) == bool(chosen[-1])]
        best = min(quality(costs, ranks, s)[0] for s in equals)
        evenness = [quality(costs, ranks, s)[1] for s in equals if quality(costs, ranks, s)[0] == best]
        assert quality(costs, ranks, chosen)[1] == min(evenness)


@given(st.sampled_from(PLACEMENTS), st.integers(0, 30), WHOLE, WHOLE)
def test_every_block_has_one_stage_in_order(placement, more, embedding, head):
    ranks = stage_ranks(*placement)
    num_blocks = len(ranks) + more
    split = split_layers(LayerCosts(embedding, 3.7, num_blocks, head), ranks)
    assert len(split) == len(ranks)
    assert [block for blocks in split for block in blocks] == list(range(num_blocks))


def test_odd_blocks_go_to_later_stages():
    assert counts(LayerCosts(0, 1, 8, 0), [0, 1, 2]) == [2, 3, 3]


def test_a_head_as_dear_as_a_stage_stands_alone():
    model = load_config("gpt2-124m").model.resolved()
    costs = stage_costs(model, 1024)
    assert costs.head > 4 * costs.block
    assert counts(costs, stage_ranks("1f1b", 2)) == [8, 4]
    assert counts(costs, stage_ranks("1f1b", 4)) == [4, 4, 4, 0]


def test_the_embedding_counts_in_the_first_stage():
    assert counts(LayerCosts(2, 1, 10, 0), [0, 1]) == [4, 6]


@pytest.mark.parametrize("name", ["gpt2-124m", "llama-1b"])
def test_costs_add_up_to_the_models_flops(name):
    model = load_config(name).model.resolved()
    costs = stage_costs(model, 2048)
    total = costs.embedding + costs.num_blocks * costs.block + costs.head
    assert total == pytest.approx(training_flops_per_token(model, 2048), rel=1e-12)
    assert costs.head == 6 * model.vocab_size * model.hidden_size
    again = stage_costs(model, 2048, recompute="full")
    assert (again.block / costs.block, again.head) == (pytest.approx(4 / 3), costs.head)


def test_more_stages_than_blocks_is_one_sentence():
    with pytest.raises(ConfigError, match=re.escape("use at most 3 stages")):
        split_layers(LayerCosts(0, 1, 3, 0), [0, 1, 2, 3])
