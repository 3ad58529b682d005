"""One rank of a small run that ends in the way its first argument says; started by torchrun in tests.

Every rank takes part in sums over all of them, as in training, and the failure comes in the middle of it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from pathlib import Path

from firstlight.support import ranks
from firstlight.support.console import note
from firstlight.support.ending import run_to_the_end
from firstlight.support.errors import ConfigError, DataError, TrainingStopped
from firstlight.support.logs import log_to
from firstlight.support.peers import watching


def main() -> None:
    how, folder = sys.argv[1], Path(sys.argv[2])
    if how == "config":
        raise ConfigError("recipe.yaml: unknown key 'modle'. Did you mean 'model'?")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    log_to(folder)
    with watching():
        store, rank, size = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(ranks.start(), store)  # torchrun keeps the addresses of the last start
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        asked = False

        def ask(*_: object) -> None:
            nonlocal asked
            asked = True

        if how in ("train", "die_once"):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, ask)
        note(f"rank {ranks.rank()} works")
        last = ranks.rank() == ranks.world_size() - 1
        for step in range(1_000_000):
            if step == (20 if how == "deaf" else 10):
                (folder / f"working_{ranks.rank()}").touch()
            if step == 20 and (how == "deaf" or (how == "stuck" and not last)):
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
                time.sleep(600)  # as a collective on a GPU does: no error, and no signal handler runs
            if step == 20 and last and how not in ("train", "finish"):
                fail(how)
            total = torch.tensor([1.0, float(asked)])
            dist.all_reduce(total)
            if total[1] and how == "train":
                time.sleep(0.3 * ranks.rank())  # one still writes while another has written
                (folder / f"saved_{ranks.rank()}").touch()
                raise TrainingStopped(f"a step of {ranks.world_size()} ranks, saved.")
            if step >= 40 and (how == "finish" or (how == "die_once" and ranks.restarts())):
                break
            time.sleep(0.01)
        dist.destroy_process_group()
    atexit.register(note, "left in order")  # as a tracker sends its last values
    note("all done")


def fail(how: str) -> None:
    if how in ("data", "stuck"):
        raise DataError("shard_7.bin: the file is cut short.")
    if how == "bug":
        print(1 / 0)
    if how == "killed" or (how == "die_once" and not ranks.restarts()):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_to_the_end(main)
