"""Ranks that fail, started by torchrun itself and by the launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

WORKER = Path(__file__).parent / "worker.py"


class Ended(NamedTuple):
    """How a run of several processes ended, what it said on both streams, and after how long."""

    code: int
    said: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What the run said, without colour, and without torchrun's log lines and the report that it ends with."""
        said = re.sub(r"\x1b\[[0-9;]*m", "", self.said).partition(
            '\nTraceback (most recent call last):\n  File "<frozen runpy>"'
        )[0]
        return [line for line in said.splitlines() if line and not re.match(r"[WE]\d{4} ", line)]


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., Ended]:
    """`run_ranks("bug", ranks=3, module="torch.distributed.run")` runs tests/support/worker.py to its end."""

    def run(
        how: str, ranks: int = 3, module: str = "firstlight.launch.torchrun", options: tuple[str, ...] = ()
    ) -> Ended:
        arguments = [f"--nproc-per-node={ranks}", *options, str(WORKER), how, str(tmp_path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FORCE_COLOR": "1", "COLUMNS": "200"}
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=90)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # the ranks notice, and end
                said, _ = process.communicate(timeout=30)
                pytest.fail(f"the ranks did not end\n{said}")
        return Ended(process.returncode, said, time.monotonic() - began)

    return run
