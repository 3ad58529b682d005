"""What asks training to stop: it finishes the step, saves and ends. A signal, or the time that the run was given.

SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 ask for it (batch systems send the last two some time before a limit); a second
SIGINT ends the process at once. A signal that the process was started to ignore (SIGINT of a shell's background job)
stays ignored.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from firstlight.support.console import note

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_BEGAN = time.monotonic()
"""When this module was loaded: before the stages ahead of training, seconds after the process began."""


class StopRequest:
    """Context in which the first signal of `ASKING` is noted instead of ending the process, and the time is watched."""

    def __init__(self, max_hours: float | None = None) -> None:
        """max_hours: since the process began; None: without end."""
        self.max_hours = max_hours
        self._asked_by: str | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def signal_name(self) -> str | None:
        """What asked to stop: the name of a signal, or "time limit of 24 h"; None as long as nothing has."""
        if self._asked_by is None and self.max_hours and time.monotonic() - _BEGAN >= 3600 * self.max_hours:
            self._ask(f"time limit of {self.max_hours:g} h")
        return self._asked_by

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._asked_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._ask(signal.Signals(number).name)

    def _ask(self, by: str) -> None:
        if self._asked_by is not None:
            return
        self._asked_by = by
        note(f"{by}: finishing this step, then saving. (Ctrl-C again ends at once.)")
