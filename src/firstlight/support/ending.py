"""How a command ends: with its work done, or with one sentence on standard error and an exit code.

A mistake of the user, a full disk, full memory and Ctrl-C never show a traceback; anything else is a bug and does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from firstlight.support.errors import EXIT_ERROR, EXIT_INTERRUPTED, FirstlightError, os_error_sentence


def run_to_the_end(work: Callable[[], object]) -> None:
    """Call `work` and end the process the way it ended; returns only when `work` does."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letter shows '?'
    try:
        try:
            work()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this code without a word
            _interrupted()
        raise
    except FirstlightError as problem:
        _end(str(problem), problem.exit_code, problem.label)
    except MemoryError:
        _end("the machine's memory is full; use a smaller batch, model or file.")
    except RuntimeError as problem:  # torch has no other word for it
        if type(problem).__name__ != "OutOfMemoryError" and "allocate memory" not in str(problem):
            raise
        _end("the device's memory is full; use a smaller training.micro_batch_size, sequence or model.")
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        _forget_output()
        sys.exit(EXIT_ERROR)
    except OSError as problem:
        if problem.errno is None:
            raise
        _forget_output()
        _end(os_error_sentence(problem))


def _interrupted() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while the interpreter leaves
    _end("nothing half-written was left behind.", EXIT_INTERRUPTED, "interrupted")


def _end(message: str, code: int = EXIT_ERROR, label: str = FirstlightError.label) -> NoReturn:
    from firstlight.support.console import fail

    fail(message, label)
    sys.exit(code)


def _forget_output() -> None:
    """Let what standard output cannot take disappear, so that the interpreter does not try again when it leaves."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
