"""Which of a run's processes this one is, as torchrun says in the environment. A process alone is rank 0 of 1.

Plain facts, read anew at every call; nothing here loads torch, so that a command can ask before it knows what it needs.
Names are torchrun's: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import os

STORE_VARIABLE = "FIRSTLIGHT_STORE"
"""HOST:PORT of the store of our launcher, which outlives every rank; else it is that of the process group."""


def world_size() -> int:
    """Processes of the run."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process among all of them, from 0."""
    return _number("RANK", 0) if together() else 0


def local_world_size() -> int:
    """Processes of the run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def local_rank() -> int:
    """Number of this process among those of its machine; also the number of its accelerator."""
    return _number("LOCAL_RANK", 0)


def restarts() -> int:
    """How often torchrun has started the processes again after a failure (`--max-restarts`)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def together() -> bool:
    """Whether the run has more than one process."""
    return world_size() > 1


def chief() -> bool:
    """Whether this process is the one that talks to the user: rank 0."""
    return rank() == 0


def start() -> str:
    """A name of this start of the processes, the same on all and another after a restart; prefix of keys in a store.

    torchrun keeps one store for all starts, in which a new process group would find the addresses of the last one, or
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1) has rank 0 make one at a new port. Only then can machines be counted on to
    agree: the number of restarts is each machine's own.
    """
    place = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    return f"{place}/{restarts()}" if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else place


def store_address() -> tuple[str, int] | None:
    """Host and port of a key-value store that all processes reach; None where nobody has named one."""
    place = os.environ.get(STORE_VARIABLE, "")
    if not place:
        place = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    host, _, port = place.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() else None


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
