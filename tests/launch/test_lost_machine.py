"""A machine is lost in the middle of a run: the rest goes on with another in its place, or without it."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "support" / "worker.py"


def machine(number: int, nodes: str, port: int, folder: Path) -> list[str | Path]:
    """The command that is typed on each "machine"; all of them are this one. The first is where they meet."""
    return [
        *(sys.executable, "-m", "firstlight.launch.torchrun", f"--nnodes={nodes}", "--nproc-per-node=1"),
        *("--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=run", f"--rdzv-endpoint=127.0.0.1:{port}"),
        *(f"--rdzv-conf=is_host={int(number == 0)},last_call_timeout=3", "--local-addr=127.0.0.1"),
        *(WORKER, "train", folder),
    ]


def begin_and_lose_one(nodes: str, start, until, folder: Path):
    """Start two machines, wait until both work, and kill one; the first machine and the command of another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = start(*machine(0, nodes, port, folder))
    lost = start(*machine(1, nodes, port, folder))
    marks = [folder / f"working_{rank}" for rank in range(2)]
    until(lambda: all(mark.exists() for mark in marks), first)
    for mark in marks:
        mark.unlink()
    lost.kill()
    return first, machine(2, nodes, port, folder)


@pytest.mark.slow
def test_another_takes_its_place(start, until, tmp_path: Path) -> None:
    first, command = begin_and_lose_one("2", start, until, tmp_path)
    another = start(*command)
    until(lambda: all((tmp_path / f"working_{rank}").exists() for rank in range(2)), first)
    first.send_signal(signal.SIGTERM)
    assert another.wait(timeout=60) == 75, "the ranks stop together, whichever machine was asked"
    said, _ = first.communicate(timeout=60)
    assert said.splitlines()[-1] == "stopped: a step of 2 ranks, saved."
    assert first.returncode == 75


@pytest.mark.slow
def test_the_rest_goes_on_without_it(start, until, tmp_path: Path) -> None:
    first, _ = begin_and_lose_one("1:2", start, until, tmp_path)
    until((tmp_path / "working_0").exists, first)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=60)
    assert said.splitlines()[-1] == "stopped: a step of 1 ranks, saved."
    assert first.returncode == 75
