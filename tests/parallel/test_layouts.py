"""Every layout holds all of the model, once; a divided head and gathered keys compute what one process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from firstlight.config import Layout


def test_four_ranks_hold_the_model_and_compute_what_one_computes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("layout_rank.py")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "4", tmp_path / "store"], stderr=subprocess.PIPE, env=environment
        )
        for rank in range(4)
    ]
    try:
        errors = [process.communicate(timeout=200)[1].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0] * 4, "\n".join(errors)


def test_every_rank_has_its_own_place() -> None:
    layout = Layout(pipeline=2, replicate=3, shard=2, context=2, tensor=2)
    places = [layout.place(rank) for rank in range(layout.world_size)]
    assert len(set(places)) == layout.world_size == 48
    assert [place.tensor for place in places[:4]] == [0, 1, 0, 1]
    assert {place.pipeline for place in places[:24]} == {0}
