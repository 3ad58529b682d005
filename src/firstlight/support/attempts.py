"""What the processes of one machine tell the launcher that started them: how they ended, in one small file.

torchrun starts processes that end with a code other than 0 again, and itself ends with 1 whatever theirs was. But a
recipe that is wrong is wrong the second time too, and "stopped, saved" (75) is not a failure. So under our launcher a
process whose ending is final writes its code into the file and leaves with 0; the launcher reads the file when all are
gone. A process that died, or met what another start may mend, leaves with its own code and is started again.

The file has a line an event, `ATTEMPT EVENT NUMBER`, appended whole; attempts are torchrun's restarts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from firstlight.support import ranks

VARIABLE = "FIRSTLIGHT_ATTEMPTS"
"""Environment variable with the path of the file."""


@dataclass
class Attempt:
    """The newest start of the processes of this machine."""

    number: int = 0
    processes: set[int] = field(default_factory=set)
    """Process ids of those that have begun."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of final endings, in their order."""
    explained: bool = False
    """Whether the user was told why it failed."""

    @property
    def code(self) -> int:
        """The exit code of the run: that of the first ending that was not a success."""
        return next((code for code in self.codes if code), 0)


def begin() -> None:
    """Write that this process has begun, and can be sent signals."""
    _append("process", os.getpid())


def explained() -> None:
    """Write that the user was told of the failure."""
    _append("explained", 0)


def leave_with(code: int, final: bool) -> int:
    """The code to end this process with, after writing down its own where that is final."""
    if not final or VARIABLE not in os.environ:
        return code
    _append("code", code)
    return 0


def read(file: Path) -> Attempt:
    """The newest attempt in a file; an empty one where nobody has begun."""
    newest = Attempt()
    for line in file.read_text().splitlines():
        number, event, value = line.split()
        if int(number) > newest.number:
            newest = Attempt(int(number))
        if event == "process":
            newest.processes.add(int(value))
        elif event == "code":
            newest.codes.append(int(value))
        else:
            newest.explained = True
    return newest


def _append(event: str, value: int) -> None:
    if file := os.environ.get(VARIABLE):
        with Path(file).open("a") as handle:
            handle.write(f"{ranks.restarts()} {event} {value}\n")
