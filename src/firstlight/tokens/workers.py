"""A pool of worker programs that take jobs as JSON lines and answer with JSON lines.

Workers are separate programs, not forks: forking a process whose Rust or BLAS threads run can lock up, and spawning
through `multiprocessing` would import the caller's script again. A worker that dies is noticed; when the caller is
interrupted, all are killed; when the caller dies, their pipes close and they end.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.support.errors import DataError

_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_module(sys.argv[1], run_name='__main__')"
_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
"""Appended to a worker's path; its working directory is not on it (-P), for a user may have a `json.py` there."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def run_jobs(
    module: str, setup: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], workers: int
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run `module` as a program on `jobs`; the block gets an iterator of the answers that ends when all jobs are done.

    Every process first reads `setup`, then job after job, and for each answers any number of messages and one with
    `kind` "done". Cores that are more than jobs become Rust threads (RAYON_NUM_THREADS) inside the processes.
    Raises DataError with the worker's sentence for `kind` "error", and when a worker dies.
    """
    processes = max(1, min(workers, len(jobs)))
    threads = max(1, workers // processes)
    environment = {
        **os.environ,
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }
    waiting = deque(jobs)
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    running: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes if jobs else 0):
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, module, _SOURCE_ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment,
                process_group=0,
            )
            running.append(process)
            threading.Thread(target=_attend, args=(process, setup, waiting, answers), daemon=True).start()
        yield _answers(answers, len(jobs))
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _attend(
    process: subprocess.Popen[str],
    setup: Mapping[str, Any],
    waiting: deque[Mapping[str, Any]],
    answers: queue.Queue[dict[str, Any]],
) -> None:
    """Hand jobs to one process and pass its answers on, until no job is left or it ends."""
    assert process.stdin and process.stdout
    message: Mapping[str, Any] = setup
    with contextlib.suppress(OSError, ValueError):
        while True:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            if message is not setup:
                for line in process.stdout:
                    answer = json.loads(line)
                    answers.put(answer)
                    if answer["kind"] == "done":
                        break
                else:
                    break
            try:
                message = waiting.popleft()
            except IndexError:
                process.stdin.close()
                return
    answers.put({"kind": "died", "code": process.wait()})


def _answers(answers: queue.Queue[dict[str, Any]], jobs: int) -> Iterator[dict[str, Any]]:
    while jobs:
        answer = answers.get()
        if answer["kind"] == "error":
            raise DataError(answer["message"])
        if answer["kind"] == "died":
            code = answer["code"]
            reason = f"signal {-code}; memory may have run out" if code < 0 else f"exit code {code}"
            raise DataError(
                f"a worker process ended before its work was done ({reason}); fewer workers need less memory."
            )
        jobs -= answer["kind"] == "done"
        yield answer
