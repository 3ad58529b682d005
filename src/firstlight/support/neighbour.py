"""Every rank of a run watches the next one, so that a rank that is killed is missed: by its process, or by its silence.

A process of the same machine is looked up, twice a second; its end is seen at once, also while the others hang in a
collective on a GPU. A rank elsewhere writes a sign of life into the store of the run, and is missed when it stops to.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from firstlight.support import ranks

if TYPE_CHECKING:
    from torch.distributed import TCPStore

SIGN_EVERY_SECONDS = 5.0
"""How often a rank gives a sign of life."""
SILENT_SECONDS = 120.0
"""A rank on another machine that gave no sign of life for so long is taken for dead, and so is a silent store."""
LEFT = "left"
"""The last sign of life: this rank has done its work."""


class Neighbour:
    """The next rank, which this one watches; so every rank is watched by one."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._sign, self._changed, self._looked = b"", 0.0, 0.0

    def dead(self, store: TCPStore) -> str | None:
        """A sentence when the next rank has ended without a word, else None. None too before its first sign of life."""
        rank = (ranks.rank() + 1) % ranks.world_size()
        if self._process is not None and _gone(self._process):
            if store.get(life_key(rank)) == LEFT.encode():
                return None
            return f"rank {rank} ended without a word: it was killed (as when the machine's memory is full) or crashed."
        now = time.monotonic()
        if not self._sign or now - self._looked >= SIGN_EVERY_SECONDS:
            self._looked = now
            self._look(store, rank)
        elsewhere = self._process is None and self._sign not in (b"", LEFT.encode())
        if elsewhere and now - self._changed >= SILENT_SECONDS:
            return f"rank {rank} has given no sign of life for {SILENT_SECONDS:.0f} seconds; its machine may be gone."
        return None

    def _look(self, store: TCPStore, rank: int) -> None:
        if not store.check([life_key(rank)]):
            return
        sign = store.get(life_key(rank))
        if sign == self._sign:
            return
        self._sign, self._changed, self._process = sign, time.monotonic(), None
        if sign != LEFT.encode():
            process, machine, _ = sign.decode().split()
            self._process = int(process) if machine == _machine() else None


def sign_of_life() -> str:
    """Process id, machine and time."""
    return f"{os.getpid()} {_machine()} {time.monotonic()}"


def key(name: str) -> str:
    """Keys of one start of the processes do not meet those of another."""
    return f"firstlight/{ranks.start()}/{name}"


def life_key(rank: int) -> str:
    """Where a rank gives its signs of life, at last LEFT."""
    return key(f"life/{rank}")


@functools.cache
def _machine() -> str:
    """What processes have in common that see each other's ids: the start of the machine, and a container's own ids."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return os.uname().nodename.replace(" ", "-")


def _gone(process: int) -> bool:
    """Whether a process of this machine has ended; one that nobody has asked for its exit code has, too."""
    try:
        os.kill(process, 0)
        with Path(f"/proc/{process}/stat").open() as handle:
            return handle.read().rpartition(")")[2].split()[0] in "ZX"
    except ProcessLookupError:
        return True
    except OSError:  # not Linux, or another user's
        return False
