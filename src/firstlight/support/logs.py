"""Rank 0 of a run talks to the terminal; every other rank writes the same into a log of its own in the run folder.

What such a rank says before the run folder is known is kept in memory and is the beginning of its log.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from firstlight.support import ranks


def log_to(run_folder: Path) -> None:
    """From now on a rank above 0 appends to `run_folder`/logs/rank_00003.log, first what it had to say before.

    Rank 0, and a process alone, go on talking to the terminal.
    """
    if quiet is None:
        return
    file = log_file(run_folder, ranks.rank())
    file.parent.mkdir(parents=True, exist_ok=True)
    quiet.open(file)


def log_file(run_folder: Path, rank: int) -> Path:
    """Where a rank above 0 writes."""
    return run_folder / "logs" / f"rank_{rank:05}.log"


def leave_terminal_to_chief() -> None:
    """On a rank above 0, send what Python prints (warnings, results) into the log too."""
    if quiet is not None:
        sys.stdout = sys.stderr = quiet


class QuietLog(io.TextIOBase):
    """The stream of a rank that does not talk: memory until it is opened, then a file, written line by line."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._target: TextIO = io.StringIO()

    def open(self, file: Path) -> None:
        """Go on in `file`: a line that says who begins when, then what was written so far."""
        before, self._target = self._target, file.open("a", encoding="utf-8", errors="replace", buffering=1)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.write(f"--- {now}: rank {ranks.rank()} of {ranks.world_size()}, start {ranks.restarts() + 1}\n")
        if isinstance(before, io.StringIO):
            self.write(before.getvalue())
        else:
            before.close()

    def write(self, text: str) -> int:
        with suppress(OSError):  # a full disk ends no rank; what the file did not take comes with the next line
            self._target.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._target.flush()

    def writable(self) -> bool:
        return True


quiet = None if ranks.chief() else QuietLog()
"""The log of a rank above 0."""
