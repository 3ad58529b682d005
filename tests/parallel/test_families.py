"""Every family and objective computes at every kind of layout what one process computes."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("family_rank.py")


def test_losses_gradients_and_scores_are_those_of_one_process(run_as_ranks) -> None:
    run_as_ranks(SCRIPT, 4)


@pytest.mark.slow
def test_so_they_are_for_every_family_at_every_layout(run_as_ranks) -> None:
    run_as_ranks(SCRIPT, 4, "all", timeout=900)
