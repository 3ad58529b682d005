"""How a command ends: with its work done, or with one sentence on standard error and an exit code.

A mistake of the user, a full disk, full memory and Ctrl-C never show a traceback; anything else is a bug and does. Of
the processes of one run only one says why (peers.py).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from firstlight.support import attempts, ranks
from firstlight.support.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    FirstlightError,
    os_error_sentence,
)
from firstlight.support.logs import leave_terminal_to_chief

if TYPE_CHECKING:
    from firstlight.support.peers import Ending


def run_to_the_end(work: Callable[[], object]) -> None:
    """Call `work` and end the process the way it ended; a process alone returns when `work` does."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letter shows '?'
    leave_terminal_to_chief()
    attempts.begin()
    if ranks.together():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            work()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except SystemExit as end:
        if end.code:
            _end(KeyboardInterrupt() if _was_interrupt(end) else end)
        _succeed()
        raise
    except BaseException as problem:
        _end(problem)
        raise
    _succeed()


def _succeed() -> None:
    """Say that the work is done; of several processes this one ends here."""
    attempts.leave_with(0, final=True)
    if ranks.together():
        from firstlight.support.peers import leave_process

        leave_process()


def _was_interrupt(end: BaseException | None) -> bool:
    """Whether Typer has turned Ctrl-C into an exit, without a word."""
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end is not None


class _Terminated(BaseException):
    """SIGTERM, which alone would end one of several processes without a word."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _end(problem: BaseException) -> None:
    """End the process; returns after a bug in a process alone, whose traceback is then Python's."""
    from firstlight.support.peers import end_together

    ending = _ending(problem)
    if ranks.together():
        for asked in (signal.SIGTERM, signal.SIGINT):  # torchrun sends one as soon as the first process has ended
            signal.signal(asked, signal.SIG_IGN)
        end_together(ending)
    if ending.label:
        from firstlight.support.console import fail

        fail(ending.message, ending.label)
    elif ending.message:
        return
    sys.exit(attempts.leave_with(ending.code, ending.final))


def _ending(problem: BaseException) -> Ending:
    """What a command says and ends with after `problem`; of a bug it is the traceback."""
    from firstlight.support.peers import Ending

    match problem:
        case KeyboardInterrupt():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while the interpreter leaves
            message = "nothing half-written was left behind."
            return Ending(message, EXIT_INTERRUPTED, "interrupted", final=True, of_all=True)
        case _Terminated():
            message = "SIGTERM: nothing half-written was left behind."
            return Ending(message, EXIT_TERMINATED, "stopped", final=True, of_all=True)
        case SystemExit():  # a command line that is wrong, which Typer has said
            code = problem.code if isinstance(problem.code, int) else EXIT_ERROR
            return Ending("", code, "", final=True, agreed=True)
        case FirstlightError():
            return Ending(str(problem), problem.exit_code, problem.label, True, problem.agreed, of_all=ranks.chief())
        case MemoryError():
            return Ending("the machine's memory is full; use a smaller batch, model or file.")
        case RuntimeError() if type(problem).__name__ == "OutOfMemoryError" or "allocate memory" in str(problem):
            return Ending("the device's memory is full; use a smaller training.micro_batch_size, sequence or model.")
        case BrokenPipeError() if not ranks.together():  # the reader, such as `head`, has had enough
            _forget_output()
            return Ending("", EXIT_ERROR, "")
        case RuntimeError() if ranks.together() and _connection_lost(problem):
            what = re.sub(r"^\[\S*/", "[", str(problem).strip()).partition("\n")[0].partition(". ")[0]
            return Ending(f"lost the connection to another rank, which gave no reason: {what}.", follows=True)
        case OSError() if problem.errno is not None:
            _forget_output()
            return Ending(os_error_sentence(problem))
    return Ending("".join(traceback.format_exception(problem)).rstrip(), label="")


_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "gloo",
    "Socket ",
)
"""What gloo and the store say, in errors of no type of their own, when a rank at the other end has ended."""


def _connection_lost(problem: BaseException) -> bool:
    return type(problem).__name__.startswith("Dist") or any(phrase in str(problem) for phrase in _LOST)


def _forget_output() -> None:
    """Let what standard output cannot take disappear, so that the interpreter does not try again when it leaves."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
