"""Exact duplicates in bounded memory: the texts seen so far as 16-byte hashes in a table on disk.

BLAKE2b (RFC 7693) with 128 bits: among 10^12 documents the chance of any false duplicate is below 10^-14. SQLite
keeps the hashes in a B-tree and a fixed share of it in memory, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from types import TracebackType

CACHE_KIB = 65536


class SeenTexts:
    """Tells whether a text occurred before; keeps its table in the file `path`, which is removed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "temp_store = MEMORY"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._connection.execute("CREATE TABLE seen (hash BLOB PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("BEGIN")

    def first_time(self, text: str) -> bool:
        """Whether `text` did not occur before; it has occurred from now on."""
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        return self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1

    def __enter__(self) -> SeenTexts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._path.unlink(missing_ok=True)
