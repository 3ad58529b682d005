"""SIGTERM and SIGINT ask training to stop: it finishes the step, saves and ends. A second SIGINT ends it at once.

A signal that the process was started to ignore (SIGINT of a shell's background job) stays ignored.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from firstlight.support.console import note


class StopRequest:
    """Context in which the first SIGTERM or SIGINT sets `signal_name` instead of ending the process."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        note(f"{self.signal_name}: finishing this step, then saving. (Ctrl-C again ends at once.)")
