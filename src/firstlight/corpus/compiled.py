"""Functions over arrays as machine code: numba, with a cache that notices when any of the code has changed.

numba keeps what it compiled beside each module and looks at that module alone: a function that calls another module's
would go on with the old one after an update. Here everything is kept under a hash of all modules of this room, in the
user's cache (`NUMBA_CACHE_DIR`, else `XDG_CACHE_HOME`, else ~/.cache), where numba falls back to its own way when
that cannot be written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function over arrays on first call, without the interpreter's lock; keep the machine code."""
    return _with_cache(function, inline="never")


def inlined(function: F) -> F:
    """The same for a few lines that are copied into their callers."""
    return _with_cache(function, inline="always")


def _with_cache(function: Any, inline: Literal["never", "always"]) -> Any:
    settings: Any = numba.config
    before, settings.CACHE_DIR = settings.CACHE_DIR, _folder()
    try:
        return numba.njit(cache=True, nogil=True, inline=inline)(function)
    finally:
        settings.CACHE_DIR = before


@cache
def _folder() -> str:
    """Where this version's machine code is kept; "" where the user has no place of their own."""
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).parent
    for module in sorted(here.rglob("*.py")):
        digest.update(module.relative_to(here).as_posix().encode() + b"\0" + module.read_bytes())
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(chosen) if chosen else Path.home() / ".cache"
    except RuntimeError:
        return ""
    return str(base.absolute() / "firstlight" / f"compiled-{digest.hexdigest()}")
