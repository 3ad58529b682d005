"""The launcher hands signals down and exit codes up, starts again what died, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firstlight.launch.torchrun import threads_per_process

WORKER = Path(__file__).parents[1] / "support" / "worker.py"
LAUNCHER = (sys.executable, "-m", "firstlight.launch.torchrun", "--nproc-per-node=2")


def working(folder: Path) -> bool:
    return all((folder / f"working_{rank}").exists() for rank in range(2))


def end(process: subprocess.Popen) -> tuple[int, list[str]]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGUSR1, signal.SIGUSR2))],
)
def test_a_signal_stops_the_run_and_its_code_is_the_launchers(start, until, tmp_path: Path, number) -> None:
    process = start(*LAUNCHER, "--max-restarts=2", WORKER, "train", tmp_path)
    until(lambda: working(tmp_path), process)
    process.send_signal(number)
    code, lines = end(process)
    assert lines == ["rank 0 works", "stopped: a step of 2 ranks, saved."]
    assert code == 75, "stopped is not a failure: it is not started again"
    assert (tmp_path / "saved_0").exists() and (tmp_path / "saved_1").exists()


def test_a_second_ctrl_c_ends_what_does_not_end_by_itself(start, until, tmp_path: Path) -> None:
    process = start(*LAUNCHER, "--max-restarts=2", WORKER, "deaf", tmp_path)
    until(lambda: working(tmp_path), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # two signals of a kind that arrive together are one
    process.send_signal(signal.SIGINT)
    code, _ = end(process)
    assert code == 130


def test_what_died_is_started_again(start, tmp_path: Path) -> None:
    code, lines = end(start(*LAUNCHER, "--max-restarts=1", WORKER, "die_once", tmp_path))
    assert lines[0] == "rank 0 works" and lines[1].startswith("error: rank 1 ended without a word")
    assert lines[2:] == ["rank 0 works", "all done", "left in order"]
    assert code == 0


def test_a_mistake_of_the_user_is_not_started_again(start, tmp_path: Path) -> None:
    code, lines = end(start(*LAUNCHER, "--max-restarts=3", WORKER, "config", tmp_path))
    assert len(lines) == 1 and lines[0].startswith("error: recipe.yaml: ")
    assert code == 1


def test_ranks_end_when_their_launcher_is_killed(start, until, tmp_path: Path) -> None:
    process = start(*LAUNCHER, WORKER, "train", tmp_path)
    until(lambda: working(tmp_path), process)
    process.kill()
    said, _ = process.communicate(timeout=30)  # ends when the last of them has closed its end of the pipe
    assert "the program that started this process is gone." in said


def test_a_code_that_nobody_explained_is_explained(start, tmp_path: Path) -> None:
    script = tmp_path / "quiet.py"
    script.write_text("import os, sys\nsys.exit(7 * (os.environ['RANK'] == '1'))\n")
    code, lines = end(start(*LAUNCHER, script))
    assert lines == ["error: rank 1 ended with exit code 7 without a word."]
    assert code == 7


def test_machines_that_do_not_meet_are_told_so(start, tmp_path: Path) -> None:
    options = (
        "--nnodes=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:1",
        "--rdzv-conf=is_host=0,read_timeout=1",
    )
    code, lines = end(start(*LAUNCHER, *options, WORKER, "train", tmp_path))
    assert len(lines) == 1 and lines[0].startswith(
        "error: the machines of the run did not find each other at 127.0.0.1:1"
    )
    assert code == 1


def test_processes_share_the_cores() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads_per_process(1) == cores
    assert threads_per_process(2 * cores) == 1
