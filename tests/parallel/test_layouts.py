"""Every layout holds all of the model, once; a divided head and gathered keys compute what one process computes."""

from __future__ import annotations

from pathlib import Path

from firstlight.config import Layout


def test_four_ranks_hold_the_model_and_compute_what_one_computes(run_as_ranks) -> None:
    run_as_ranks(Path(__file__).with_name("layout_rank.py"), 4)


def test_every_rank_has_its_own_place() -> None:
    layout = Layout(pipeline=2, replicate=3, shard=2, context=2, tensor=2)
    places = [layout.place(rank) for rank in range(layout.world_size)]
    assert len(set(places)) == layout.world_size == 48
    assert [place.tensor for place in places[:4]] == [0, 1, 0, 1]
    assert {place.pipeline for place in places[:24]} == {0}
