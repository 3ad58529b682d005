"""Files that grow by whole lines, on a disk that may be full for a while."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from firstlight.support.console import warn
from firstlight.support.errors import os_error_sentence
from firstlight.support.files import naming

MOST_KEPT = 100_000
"""Lines that wait in memory; of more, the oldest are given up."""


class LineFile:
    """Appends lines to `path`. One that the disk does not take waits, is told of once, and comes before the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[str] = deque(maxlen=MOST_KEPT)

    def write(self, line: str) -> None:
        """Append `line` (without its end)."""
        first = not self._waiting
        self._waiting.append(line)
        try:
            with naming(self.path):
                self._append("".join(f"{waiting}\n" for waiting in self._waiting).encode("utf-8"))
        except OSError as problem:
            if first:
                warn(f"{os_error_sentence(problem)} Lines for this file wait in memory until it can be written.")
        else:
            self._waiting.clear()

    def _append(self, data: bytes) -> None:
        """All of `data` or nothing."""
        with self.path.open("ab", buffering=0) as handle:
            size = os.fstat(handle.fileno()).st_size
            try:
                while data:
                    data = data[handle.write(data) or 0 :]
            except OSError:
                os.ftruncate(handle.fileno(), size)
                raise
