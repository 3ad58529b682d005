"""Worker programs that take jobs as JSON lines and answer with JSON lines.

Workers are separate programs, not forks: forking a process whose Rust or BLAS threads run can lock up, and spawning
through `multiprocessing` would import the caller's script again. A worker that is killed is replaced and its job begun
again; when the caller is interrupted, all are killed; when the caller dies, their pipes close and they end.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.support.console import warn
from firstlight.support.errors import DataError, FirstlightError, os_error_sentence

ATTEMPTS = 3
"""How often a job is begun before its worker's death counts as the job's fault."""

_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_module(sys.argv[1], run_name='__main__')"
_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
"""Appended to a worker's path; its working directory is not on it (-P), for a user may have a `json.py` there."""

Send = Callable[..., None]
"""Answers the caller from inside a worker: `send(kind="progress", …)`."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(start: Callable[[dict[str, Any]], Callable[[dict[str, Any], Send], None]]) -> None:
    """The body of a worker program: `start(setup)` once, then what it returned for every job on standard input.

    Whatever the work prints goes to standard error. A FirstlightError or an OSError is answered as one sentence and
    ends the program; anything else is a bug and ends it with a traceback. The death of the caller ends it at once.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    busy = threading.Event()
    busy.set()
    threading.Thread(target=_leave_with_the_caller, args=(busy,), daemon=True).start()

    def send(**message: Any) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except BrokenPipeError:
            os._exit(1)

    try:
        work = start(json.loads(sys.stdin.readline()))
        for line in sys.stdin:
            busy.set()
            work(json.loads(line), send)
            busy.clear()
            send(kind="done")
    except FirstlightError as problem:
        send(kind="error", message=str(problem))
    except OSError as problem:
        send(kind="error", message=os_error_sentence(problem))


def _leave_with_the_caller(busy: threading.Event) -> None:
    """End this process when nobody holds the other end of standard input any more; an idle one ends by itself."""
    watch = select.poll()
    watch.register(0, 0)
    watch.poll()
    busy.wait()
    os._exit(1)


@contextlib.contextmanager
def run_jobs(
    module: str,
    setup: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    workers: int | None = None,
    ray: str | None = None,
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run `module` as a program on `jobs`; the block gets an iterator of the answers that ends when all jobs are done.

    Every process first reads `setup`, then job after job, and for each answers any number of messages and one with
    `kind` "done" (see `serve`). A job whose process was killed is begun again, `ATTEMPTS` times at most, with a
    warning; the numbers in its "progress" so far are then taken back by one with the same numbers below 0.

    workers: programs at a time; unset: one a core. Cores that are more than jobs become threads inside the processes.
    ray: address of a Ray cluster, whose machines run the same programs (see `firstlight.engine.cluster`); the caller's
    working directory and all paths in `setup` and `jobs` must be the same there.

    Raises DataError with the worker's sentence for `kind` "error", and when a worker dies once too often or by itself.
    """
    if ray:
        from firstlight.engine.cluster import jobs_on_ray

        yield _heed(jobs_on_ray(module, setup, jobs, workers, ray))
        return
    workers = workers or available_cores()
    processes = max(1, min(workers, len(jobs)))
    seats = [Seat(module, setup, threads=max(1, workers // processes)) for _ in range(processes)]
    waiting = deque(jobs)
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    try:
        for seat in seats:
            threading.Thread(target=_attend, args=(seat, waiting, answers), daemon=True).start()
        yield _heed(_until_done(answers, len(jobs)))
    finally:
        for seat in seats:
            seat.kill()


class Seat:
    """A place for one worker program at a time: another takes the place, and the job, of one that was killed."""

    def __init__(self, module: str, setup: Mapping[str, Any], threads: int = 1, directory: str | None = None) -> None:
        """Programs as `_Worker` starts them; the first comes with the first job."""
        self._start = lambda: _Worker(module, setup, threads, directory)
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._closed = False

    def do(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers to one job; the last has `kind` "done", "error", or "died" with `code` and `attempts`.

        "killed" among them says that the job is begun again, and what of its `progress` is taken back.
        """
        for attempt in range(1, ATTEMPTS + 1):
            reported: Counter[str] = Counter()
            for answer in self._answers(job):
                if answer["kind"] == "died":
                    break
                if answer["kind"] == "progress":
                    reported.update({name: value for name, value in answer.items() if name != "kind"})
                yield answer
            else:
                return
            if answer["code"] >= 0 or attempt == ATTEMPTS or self._closed:
                yield {**answer, "attempts": attempt}
                return
            yield {**answer, "kind": "killed", "progress": {name: -value for name, value in reported.items()}}

    def _answers(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Those of one program to the job."""
        try:
            with self._lock:
                if self._closed:
                    return
                if self._worker is None or not self._worker.alive:
                    self._worker = self._start()
                worker = self._worker
        except OSError as problem:
            yield {"kind": "error", "message": os_error_sentence(problem)}
            return
        yield from worker.do(job)

    def close(self) -> None:
        """Let the program end; there are no more jobs."""
        if self._worker:
            self._worker.close()

    def kill(self) -> None:
        """End the program now, and let none follow it."""
        with self._lock:
            self._closed = True
            if self._worker:
                self._worker.kill()


class _Worker:
    """One worker program, and the conversation with it."""

    def __init__(self, module: str, setup: Mapping[str, Any], threads: int, directory: str | None) -> None:
        """Start `module` as a program in `directory` (None: this one) that is told `setup` and uses `threads`."""
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        }
        self._setup: Mapping[str, Any] | None = setup
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, module, _SOURCE_ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            cwd=directory,
            process_group=0,
        )

    def do(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The answers to one job; the last has `kind` "done", "error", or "died" with its exit code."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(OSError, ValueError):
            for message in (self._setup, job):
                if message is not None:
                    self._process.stdin.write(json.dumps(message) + "\n")
            self._setup = None
            self._process.stdin.flush()
            for line in self._process.stdout:
                answer = json.loads(line)
                if answer["kind"] == "error":
                    self.kill()
                yield answer
                if answer["kind"] in ("done", "error"):
                    return
        yield {"kind": "died", "code": self._process.wait()}

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.poll() is None

    def close(self) -> None:
        """Let it end; it has no more jobs."""
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


def _attend(seat: Seat, waiting: deque[Mapping[str, Any]], answers: queue.Queue[dict[str, Any]]) -> None:
    """Hand jobs to one seat and pass its answers on, until no job is left or one ends without being done."""
    while True:
        try:
            job = waiting.popleft()
        except IndexError:
            seat.close()
            return
        answer: dict[str, Any] = {"kind": "died"}
        for answer in seat.do(job):
            answers.put(answer)
        if answer["kind"] != "done":
            return


def _until_done(answers: queue.Queue[dict[str, Any]], jobs: int) -> Iterator[dict[str, Any]]:
    while jobs:
        answer = answers.get()
        jobs -= answer["kind"] == "done"
        yield answer


def _heed(answers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the caller is told: of a killed worker, the progress to take back. DataError for a job that failed."""
    for answer in answers:
        match answer["kind"]:
            case "error":
                raise DataError(answer["message"])
            case "died":
                raise DataError(f"{_death(answer['code'])}{_remedy(answer['code'], answer['attempts'])}.")
            case "killed":
                warn(f"{_death(answer['code'])}; what it worked on is begun again.")
                if answer["progress"]:
                    yield {"kind": "progress", **answer["progress"]}
            case _:
                yield answer


def _death(code: int) -> str:
    reason = f"signal {-code}; memory may have run out" if code < 0 else f"exit code {code}"
    return f"a worker process ended before its work was done ({reason})"


def _remedy(code: int, attempts: int) -> str:
    if code >= 0:
        return "; it ended by itself, and what it wrote to standard error says why"
    return f", as did {attempts - 1} others that tried; fewer workers need less memory"
