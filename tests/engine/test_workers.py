"""A killed worker changes nothing but the time; one that ends by itself, and a job that kills three, are told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from firstlight.engine import finished_folder, remove_unfinished
from firstlight.engine.workers import ATTEMPTS, run_jobs
from firstlight.support.errors import DataError


@pytest.fixture
def do(module: str, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """`do(jobs, workers)`: all answers to jobs, whose worker programs leave a file for every time one is begun."""

    def run(jobs: list[dict[str, Any]], workers: int = 2) -> list[dict[str, Any]]:
        (tmp_path / "begun").mkdir()
        with run_jobs(module, {"folder": str(tmp_path / "begun")}, jobs, workers) as answers:
            return list(answers)

    return run


def begun(tmp_path: Path, name: str) -> int:
    return len(list((tmp_path / "begun").glob(f"{name}-*")))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_the_job_of_a_killed_worker_is_begun_again(
    do: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    times: int,
) -> None:
    jobs: list[dict[str, Any]] = [{"name": f"job{number}", "items": number} for number in range(5)]
    jobs[2] |= {"fate": "killed", "times": times}
    answers = do(jobs, workers)
    assert [answer["kind"] for answer in answers].count("done") == len(jobs)
    progress = [answer for answer in answers if answer["kind"] == "progress"]
    assert sum(answer["items"] for answer in progress) == sum(job["items"] + 1 for job in jobs)
    assert sum(answer["bytes"] for answer in progress) == 11 * len(jobs)
    assert [begun(tmp_path, job["name"]) for job in jobs] == [1, 1, times + 1, 1, 1]
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == times
    assert all("signal 9; memory may have run out" in line and "begun again" in line for line in warnings)


@pytest.mark.parametrize(
    ("fate", "times", "sentence"),
    [
        ("killed", ATTEMPTS, f"a worker process ended .*signal 9.*, as did {ATTEMPTS - 1} others .*fewer workers"),
        ("leaves", 1, "a worker process ended before its work was done .exit code 7.; it ended by itself"),
        ("refuses", 1, "^this cannot be read.$"),
    ],
)
def test_a_job_that_cannot_be_done_is_one_sentence(
    do: Callable[..., list[dict[str, Any]]], tmp_path: Path, fate: str, times: int, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        do([{"name": "good", "items": 1}, {"name": "bad", "items": 1, "fate": fate, "times": ATTEMPTS}])
    assert begun(tmp_path, "bad") == times
    assert not psutil.Process().children()


def test_busy_workers_end_at_once_with_their_caller(module: str, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    program = (
        "import sys; from firstlight.engine import run_jobs\n"
        "jobs = [{'name': f'job{n}', 'items': n, 'fate': 'sleeps'} for n in range(2)]\n"
        "with run_jobs(sys.argv[1], {'folder': sys.argv[2]}, jobs, 2) as answers: list(answers)"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, module, str(tmp_path / "begun")])
    while len(files := list((tmp_path / "begun").iterdir())) < 2:
        assert caller.poll() is None
        time.sleep(0.01)
    caller.kill()
    caller.wait()
    pids = [int(file.name.rpartition("-")[2]) for file in files]
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_folder_is_finished_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError), finished_folder(tmp_path / "unit", "last"):
        raise KeyError
    assert not list(tmp_path.iterdir())

    with finished_folder(tmp_path / "unit", "last") as mine, finished_folder(tmp_path / "other", "last") as other:
        (mine / "last").write_text("mine")
        other.rename(tmp_path / "unit")
        (tmp_path / "unit" / "last").write_text("of one who was faster")
        other.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "unit"]
    assert (tmp_path / "unit" / "last").read_text() == "of one who was faster"

    (tmp_path / ".unit.machine.17").mkdir()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "unit"]
