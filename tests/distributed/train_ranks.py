"""Trains recipes as several processes, one run after the other: `python train_ranks.py JOBS.json`.

A job is {"world_size", "recipe", "overrides", "seconds"}. Every rank is a fork of this process, which has everything
imported already, so that a run costs a second and not the many that torchrun takes to start; tests of torchrun itself
are elsewhere. Ends with the first job whose ranks do not all end with 0.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from firstlight.pipeline.run_training import train
from firstlight.support.errors import FirstlightError


def main(jobs: list[dict[str, Any]]) -> int:
    torch.set_num_threads(1)
    for job in jobs:
        codes = run(job)
        if any(codes):
            print(f"{job['overrides']}: ended with {codes}", file=sys.stderr)
            return 1
    return 0


def run(job: dict[str, Any]) -> list[int]:
    """Exit codes of the ranks, -9 for those that were killed because one failed or time was up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {fork(rank, port, job): rank for rank in range(job["world_size"])}
    codes = [-9] * len(ranks)
    deadline = time.monotonic() + job["seconds"]
    while ranks:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            codes[ranks.pop(ended)] = os.waitstatus_to_exitcode(status)
            if status:
                deadline = min(deadline, time.monotonic() + 5)
        elif time.monotonic() > deadline:
            for process in ranks:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            return codes
        else:
            time.sleep(0.01)
    return codes


def fork(rank: int, port: int, job: dict[str, Any]) -> int:
    """Process id of a new rank."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world_size"], "LOCAL_WORLD_SIZE": job["world_size"]}
    os.environ.update({name: str(number) for name, number in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    code = 1
    try:
        train(job["recipe"], job["overrides"])
        code = 0
    except FirstlightError as problem:
        print(f"rank {rank}: {problem}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
