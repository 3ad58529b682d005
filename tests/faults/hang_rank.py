"""A small run, alone or one of several ranks, that takes steps and then does what its first argument says."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from firstlight.support import ranks
from firstlight.support.console import note
from firstlight.support.ending import run_to_the_end
from firstlight.support.hang import beat, resting, watching_steps
from firstlight.support.logs import log_to
from firstlight.support.peers import watching

LIMIT = 2
"""Seconds for a step."""
BREAK = 4 * LIMIT


def main() -> None:
    how, folder = sys.argv[1], Path(sys.argv[2])
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    log_to(folder)
    with watching():
        if ranks.together():
            store, rank, size = next(dist.rendezvous("env://"))
            store = dist.PrefixStore(ranks.start(), store)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        with watching_steps(LIMIT, lambda message: (folder / f"recorded_{ranks.rank()}").write_text(message)):
            for step in range(40):
                if step == 20:
                    in_the_middle(how, folder)
                if ranks.together():
                    dist.all_reduce(torch.ones(1))
                time.sleep(0.01)
                beat()
        if how == "afterwards":
            time.sleep(BREAK)
        if ranks.together():
            dist.destroy_process_group()
    note("all done")


def in_the_middle(how: str, folder: Path) -> None:
    if how == "rests":
        with resting():
            time.sleep(BREAK)
    elif how == "is paused":
        (folder / "pausing").touch()
        signal.pause()  # SIGUSR1 goes on
    hangs = how == "hangs" or (how == "hangs once" and not ranks.restarts())
    if hangs and ranks.rank() == ranks.world_size() - 1:
        wait_for_a_disk_that_is_gone()


def wait_for_a_disk_that_is_gone() -> None:
    time.sleep(600)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: None)
    run_to_the_end(main)
