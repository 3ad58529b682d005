"""torchrun, with the manners of the rest: `python -m firstlight.launch.torchrun OPTIONS -m firstlight train RECIPE`.

The options are torchrun's, and it is torchrun that starts the processes, gives them their ranks and starts them again.
Four things are different. It ends with the exit code of the run (75 stopped, 3 diverged), where torchrun's is 1. It
says nothing when a process has told the user what went wrong. SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are passed
on to the processes, which may take what time they need to save; torchrun kills them after 30 s (before torch 2.12
always). And what another start cannot mend is not started again (support/attempts.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from firstlight.support import attempts, ranks
from firstlight.support.console import fail
from firstlight.support.ending import run_to_the_end
from firstlight.support.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED, FirstlightError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

AT_ONCE_SECONDS = 5
"""What processes have to end by themselves after a second Ctrl-C; then they are killed."""

_CPP_LOGS = "TORCH_CPP_LOG_LEVEL"
"""Which messages of torch's C++ side are shown."""

_TORCHRUN_PORT = 29400
"""Where torchrun's machines meet when nobody names a port."""

_PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGUSR2: signal.SIGTERM,
}
"""What the processes get for a signal; the last three are how a closed terminal and batch systems ask a run to stop."""


def torchrun(arguments: Sequence[str]) -> int:
    """Run torchrun with these arguments to its end; the exit code of the run.

    FirstlightError when the processes could not be started or did not find each other.
    """
    logging.disable(logging.CRITICAL)  # torchrun reports on what a process has told already
    given = os.environ.get(_CPP_LOGS)
    os.environ[_CPP_LOGS] = given or "FATAL"  # read once, by this import; what fails here is told below
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    os.environ[_CPP_LOGS] = given or "ERROR"
    options = run.parse_args(list(arguments))
    options.signals_to_handle = "SIGQUIT"  # the others are handled here
    if run.parse_min_max_nnodes(options.nnodes)[1] == 1 and not options.rdzv_endpoint:
        options.standalone, options.rdzv_backend, options.rdzv_endpoint = False, "c10d", f"127.0.0.1:{_free_port()}"
        options.local_addr = options.local_addr or "127.0.0.1"
    processes = run.determine_local_world_size(options.nproc_per_node)
    with tempfile.TemporaryDirectory(prefix="firstlight-") as folder:
        file = Path(folder) / "attempts"
        file.touch()
        os.environ |= {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_process(processes))),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # a restart in the store of the last start meets its addresses
            ranks.STORE_VARIABLE: _store(options.rdzv_backend, options.rdzv_endpoint),
            attempts.VARIABLE: str(file),
        }
        try:
            with _signals_passed_on(file, processes):
                run.run(options)
        except ChildFailedError as problem:
            return _failed(problem.failures, attempts.read(file))
        except _Stopped as stopped:
            return attempts.read(file).code or stopped.code
        except RendezvousError as problem:
            raise FirstlightError(_not_met(problem, options.rdzv_endpoint)) from None
        finally:
            del os.environ[attempts.VARIABLE]
        return attempts.read(file).code


def threads_per_process(processes: int) -> int:
    """Threads for each of `processes` on this machine, so that together they have one a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


class _Stopped(BaseException):
    """A signal that ends torchrun's loop, and with it the processes, at once."""

    def __init__(self, code: int) -> None:
        self.code = code


@contextlib.contextmanager
def _signals_passed_on(file: Path, processes: int) -> Iterator[None]:
    """Send the signals that this process gets to the ones that it has started."""
    interrupts = 0

    def receive(number: int, _: FrameType | None) -> None:
        nonlocal interrupts
        begun = attempts.read(file).processes
        if number == signal.SIGALRM:
            _send(begun, signal.SIGKILL)
            raise _Stopped(EXIT_INTERRUPTED)
        if len(begun) < processes:
            raise _Stopped(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED)
        _send(begun, _PASSED_ON[signal.Signals(number)])
        interrupts += number == signal.SIGINT
        if interrupts == 2:
            signal.alarm(AT_ONCE_SECONDS)

    handled = [number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in (*handled, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _store(backend: str, endpoint: str) -> str:
    """HOST:PORT of the store in which machines meet; it is there as long as the first machine's launcher."""
    if backend != "c10d":
        return ""
    return endpoint if re.search(r":\d+$", endpoint) else f"{endpoint}:{_TORCHRUN_PORT}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _send(processes: set[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _failed(failures: dict[int, ProcessFailure], attempt: attempts.Attempt) -> int:
    """The exit code after a process failed, and the reason if nobody has told it."""
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    # torchrun itself sends SIGTERM to what is left, and the last resort of a process whose peer died is EXIT_ERROR
    order = {-signal.SIGTERM: 2, EXIT_ERROR: 1}
    rank = min(codes, key=lambda rank: (order.get(codes[rank], 0), rank))
    code = codes[rank]
    if not attempt.explained:
        why = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code} without a word"
        )
        hint = "; the kernel does so when the machine's memory is full" if code == -signal.SIGKILL else ""
        fail(f"rank {rank} {why}{hint}.", FirstlightError.label)
    return 128 - code if code < 0 else code


def _not_met(problem: Exception, endpoint: str) -> str:
    return (
        f"the machines of the run did not find each other at {endpoint} ({str(problem).rstrip('.')}); "
        "the address must be that of the first machine, reachable from all, with its port open and the same on all."
    )


def main() -> None:
    """The command line: torchrun's arguments."""
    run_to_the_end(lambda: sys.exit(torchrun(sys.argv[1:])))


if __name__ == "__main__":
    main()
