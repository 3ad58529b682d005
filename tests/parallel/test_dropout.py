"""Dropout at every kind of layout, micro-batch and recomputation is that of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.tokens.loader import TokenBatch

from .dropout_rank import LENGTH, ROWS, VOCABULARY, config

SCRIPT = Path(__file__).with_name("dropout_rank.py")


def test_losses_gradients_and_scores_are_those_of_one_process(run_as_ranks) -> None:
    run_as_ranks(SCRIPT, 2)


@pytest.mark.slow
def test_so_they_are_where_layouts_are_combined(run_as_ranks) -> None:
    run_as_ranks(SCRIPT, 4, timeout=600)


def test_masks_are_those_of_the_seed_and_the_sample() -> None:
    """The same weights and tokens: other losses with another seed or at another sample, and the same when repeated."""
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    weights = None
    losses = []
    for seed, first_sample in ((7, 0), (7, 0), (8, 0), (7, ROWS)):
        model = ParallelModel(config({}, {}, "none", 4).model_copy(update={"seed": seed}), Ranks())
        model.materialize()
        model.init_weights()
        weights = weights or model.parts[0].state_dict()
        model.parts[0].load_state_dict(weights)
        factor = torch.tensor(1.0 / tokens.numel())
        losses.append(round(model.forward_backward(TokenBatch(first_sample, tokens, tokens), factor).item(), 5))
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
