"""A run that stands still is found, the rank that it waits for is told with its stack, and all processes end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from firstlight.support.errors import EXIT_HUNG
from firstlight.support.hang import Standstill, late_ranks

RANK = Path(__file__).parent / "hang_rank.py"
ALONE: tuple[str, ...] = (sys.executable,)
THREE = (sys.executable, "-m", "firstlight.launch.torchrun", "--nproc-per-node=3")


class Ended(NamedTuple):
    code: int
    said: str


def start(command: tuple[str, ...], how: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, str(RANK), how, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    try:
        said, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"the run did not end\n{said}")
    return Ended(process.returncode, said)


def test_a_process_alone_shows_where_it_stands_and_ends(tmp_path: Path) -> None:
    code, said = end(start(ALONE, "hangs", tmp_path))
    assert code == EXIT_HUNG
    first, *rest = said.splitlines()
    assert first.startswith("error: no step was finished for ") and first.endswith("; the process stands here:")
    assert rest[-2].endswith("in wait_for_a_disk_that_is_gone") and rest[-1].strip() == "time.sleep(600)"
    assert (tmp_path / "recorded_0").read_text() in said


def test_the_rank_that_the_others_wait_for_is_told_with_its_stack(tmp_path: Path) -> None:
    code, said = end(start(THREE, "hangs", tmp_path))
    assert code == EXIT_HUNG, said
    lines = said.splitlines()
    assert lines[0].startswith("error: rank 2 has finished no step for ")
    assert lines[0].endswith(" seconds, and 2 others wait.")
    assert lines[1] == "rank 2 stands here:"
    assert "in wait_for_a_disk_that_is_gone" in said and said.count("stands here:") == 1
    assert "wait_for_a_disk_that_is_gone" in (tmp_path / "logs" / "rank_00002.log").read_text()
    assert "all_reduce" in (tmp_path / "logs" / "rank_00001.log").read_text()


def test_a_run_that_hung_is_started_again(tmp_path: Path) -> None:
    code, said = end(start((*THREE, "--max-restarts=1"), "hangs once", tmp_path))
    assert code == 0, said
    assert said.splitlines()[0].startswith("error: rank 2 has finished no step for ")
    assert said.splitlines()[-1] == "all done"


@pytest.mark.parametrize("how", ["rests", "afterwards"])
def test_what_is_no_step_may_take_longer(how: str, tmp_path: Path) -> None:
    assert end(start(ALONE, how, tmp_path)) == (0, "all done\n")


@pytest.mark.slow  # seconds count, which a busy machine has not
def test_a_process_that_was_stopped_for_long_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    process = start(ALONE, "is paused", tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pausing").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGCONT)
    assert end(process) == (0, "all done\n")


TRAIN = """
import sys, time
from firstlight import pipeline
from firstlight.support.ending import run_to_the_end
from firstlight.tokens.loader import Loader

take = Loader.__next__

def stuck(self):
    batch = take(self)
    if batch.first_sample >= 8 * 20:
        time.sleep(600)
    return batch

Loader.__next__ = stuck
run_to_the_end(lambda: pipeline.train("recipe.yaml", sys.argv[1:]))
"""


def test_training_whose_data_stop_coming(folder: Path) -> None:
    """The whole program: told, recorded, and the run goes on from its last checkpoint."""
    settings = ("name=stuck", "training.total_steps=30", "checkpoint.interval_steps=5", "training.hang_seconds=2")
    command = [sys.executable, "-c", TRAIN, *settings]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"})
    assert ended.returncode == EXIT_HUNG, ended.stderr
    assert "error: no step was finished for " in ended.stderr and "in stuck" in ended.stderr
    events = [json.loads(line) for line in Path("runs/stuck/events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["hung"] and "in stuck" in events[0]["message"]
    again = subprocess.run(
        [sys.executable, "-m", "firstlight", "train", "recipe.yaml", *settings],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0 and "resumed at step 20" in again.stderr, again.stderr


def at(steps: int = 5, place: str = "a.py:1 in f", waits: bool = False) -> Standstill:
    return Standstill(steps, place, waits, "")


@pytest.mark.parametrize(
    ("found", "late"),
    [
        ({0: at(), 1: at(), 3: at()}, [2]),  # rank 2 says nothing
        ({0: at(6), 1: at(5), 2: at(6, waits=True), 3: at(6)}, [1]),
        ({0: at(waits=True), 1: at(waits=True), 2: at(), 3: at(waits=True)}, [2]),
        ({0: at(place="b.py:2 in g"), 1: at(), 2: at(), 3: at()}, [0]),
        ({0: at(waits=True), 1: at(waits=True), 2: at(waits=True), 3: at(waits=True)}, [0, 1, 2, 3]),
    ],
)
def test_whom_the_others_wait_for(found: dict[int, Standstill], late: list[int]) -> None:
    assert late_ranks(found, 4) == late
