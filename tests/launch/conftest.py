"""The launcher as a process, whose ranks run tests/support/worker.py or what takes the place of `firstlight train`."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "support" / "worker.py"


@pytest.fixture
def until() -> Callable[..., None]:
    """`until(lambda: …, process)` waits for something to become true while a process runs."""

    def wait(true: Callable[[], object], process: subprocess.Popen, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return wait


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`start("bash", "job.sbatch", env={…})` starts a command in the test's folder, in a session of its own."""
    started: list[subprocess.Popen] = []

    def begin(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """`stand_in("train")`: environment in which torchrun's processes run the worker instead of `firstlight train`."""

    def make(how: str) -> dict[str, str]:
        script = tmp_path / "python"
        script.write_text(f'#!/bin/bash\nexec "{sys.executable}" "{WORKER}" {how} "{tmp_path}"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return {"PYTHON_EXEC": str(script)}

    return make
