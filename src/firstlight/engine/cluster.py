"""The same worker programs on the machines of a Ray cluster, handed out by Daft's Ray runner.

A job is a row; a function over rows starts a worker program on the machine where the row is, and keeps it for the next
ones. A program that is killed is replaced there, as on one machine; Daft gives the rows of a lost process or machine to
another; and a query that was lost as a whole is begun again. So a loss costs time only: jobs write whole results or
none. Folders that jobs name must be on a disk that all machines share.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from firstlight.engine.tables import load_daft
from firstlight.engine.workers import ATTEMPTS, Seat
from firstlight.support.console import warn
from firstlight.support.errors import FirstlightError

ANSWER_SECONDS = 5
"""How long a machine may take to accept a connection."""
RECOVERY_SECONDS = 5
"""Pause after a loss: the cluster has to notice it, and to start anew what died."""

T = TypeVar("T")


def connect(address: str) -> Any:
    """Daft, with its queries on the Ray cluster at `address` ("auto", HOST:PORT, ray://HOST:10001, or "local").

    "local" starts a cluster on this machine, which ends with the process. FirstlightError when Ray is not installed,
    nobody answers, or this process has used Daft without a cluster before.
    """
    daft = load_daft()
    if address != "local":
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # else it asks one that does not answer for 12 minutes
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # else Ray writes of lost processes to standard output
    try:
        import ray
    except ImportError:
        raise FirstlightError("--ray needs the `ray` package; pip install 'firstlight[ray]'.") from None
    if not ray.is_initialized():
        try:
            _knock(address)
            with warnings.catch_warnings(action="ignore"):
                ray.init(
                    address=address,
                    include_dashboard=False if address == "local" else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except (OSError, RuntimeError, ValueError) as problem:
            token = type(problem) is ConnectionError and address != "auto"  # not refused by the machine itself
            advice = "; if it asks for a token, set RAY_AUTH_MODE=token" if token else ""
            raise FirstlightError(
                f"--ray {address}: no Ray cluster answers there ({_reason(problem)}){advice}."
            ) from None
    if daft.set_runner_ray(noop_if_initialized=True).name != "ray":
        raise FirstlightError(
            "--ray: this process has worked without a cluster before; a Ray cluster needs a process of its own."
        )
    return daft


def _knock(address: str) -> None:
    """OSError when HOST:PORT or ray://HOST:PORT takes no connections, ValueError for half an address."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.scheme == "ray" and not (place.hostname and place.port):
        raise ValueError("write ray://HOST:10001")
    if place.scheme in ("", "ray") and place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=ANSWER_SECONDS).close()


def query_on_ray(query: Callable[[], T], address: str) -> T:
    """What `query` returns, its Daft queries done on the cluster; it is called again when the cluster loses them."""
    daft = connect(address)
    from ray.exceptions import RayError

    attempt = 0
    while True:
        attempt += 1
        try:
            return query()
        except RayError as problem:
            _lost(daft, problem, attempt)


def jobs_on_ray(
    module: str, setup: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], workers: int | None, address: str
) -> Iterator[dict[str, Any]]:
    """The answers of `Seat.do` to jobs done on the cluster; those of one job come together, when it is done.

    workers: jobs at a time, dealt out beforehand; unset: one a core, as cores become free.
    """
    daft = connect(address)
    from ray.exceptions import RayError

    plan, directory = json.dumps(setup), str(Path.cwd())

    @daft.func(return_dtype=daft.DataType.string())
    def work(number: int, job: str) -> str:
        with _seat(module, plan, directory) as seat:
            return json.dumps([number, *seat.do(json.loads(job))])

    left = dict(enumerate(jobs))
    attempt = 0
    while left:
        attempt += 1
        hands = min(workers or len(left), len(left))
        numbers = [number for hand in range(hands) for number in list(left)[hand::hands]]
        rows = {"number": numbers, "job": [json.dumps(left[number]) for number in numbers]}
        table = daft.from_pydict(rows).into_partitions(hands)
        try:
            for row in table.select(work(daft.col("number"), daft.col("job")).alias("answers")).iter_rows():
                number, *answers = json.loads(row["answers"])
                yield from answers
                del left[number]
        except RayError as problem:
            _lost(daft, problem, attempt)


def _lost(daft: Any, problem: Exception, attempt: int) -> None:
    """Say that a query begun `attempt` times is begun again, and wait; FirstlightError when that was often enough."""
    if attempt >= ATTEMPTS:
        raise FirstlightError(
            f"the Ray cluster lost the work {attempt} times ({_reason(problem)}); the same command goes on from what "
            "is finished."
        ) from None
    warn(f"the Ray cluster lost what it worked on ({_reason(problem)}); it is begun again.")
    _forget_the_query(daft)
    time.sleep(RECOVERY_SECONDS)


def _forget_the_query(daft: Any) -> None:
    """End the process that hands out a query's work, and let Daft start another: it keeps the handle of a dead one."""
    import ray

    runner = daft.get_or_create_runner()
    if getattr(runner, "flotilla_plan_runner", None):
        ray.kill(runner.flotilla_plan_runner.runner)
        runner.flotilla_plan_runner = None


def _reason(problem: Exception) -> str:
    """The first line of what happened, on whatever machine."""
    text = str(getattr(problem, "strerror", None) or getattr(problem, "cause", None) or problem).strip()
    return text.splitlines()[0].rstrip(".")[:160] if text else type(problem).__name__


_idle: dict[tuple[str, str, str], list[Seat]] = {}
"""In a process of the cluster: seats without a job, by what their programs do."""
_idle_lock = threading.Lock()


@contextlib.contextmanager
def _seat(module: str, plan: str, directory: str) -> Iterator[Seat]:
    """A seat for one job, in the caller's working directory where the machine has it; those of other plans end."""
    key = (module, plan, directory)
    with _idle_lock:
        for other in [other for other in _idle if other != key]:
            for seat in _idle.pop(other):
                seat.kill()
        there = _idle.setdefault(key, [])
        seat = there.pop() if there else Seat(module, json.loads(plan), directory=_if_there(directory))
    try:
        yield seat
    finally:
        with _idle_lock:
            _idle.setdefault(key, []).append(seat)


def _if_there(directory: str) -> str | None:
    return directory if Path(directory).is_dir() else None
