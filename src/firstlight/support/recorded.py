"""Files of which another file records size and SHA-256, compared with that record."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from firstlight.support.files import sha256_file


class RecordedFile(NamedTuple):
    """A file as it was when it was written."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""
    record: str
    """Name of the file that says so."""

    def fault(self, *, quick: bool = False, advance: Callable[[int], None] | None = None) -> str | None:
        """What is wrong with the file, as a sentence that names it; None when it is as it was.

        quick: compare sizes only. advance: is told the bytes that were read.
        """
        try:
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode):
                return f"{self.path}: not a file, though {self.record} names it as one."
            if found.st_size != self.size:
                return f"{self.path}: {found.st_size} bytes, but {self.record} says {self.size}; it is damaged."
            if not os.access(self.path, os.R_OK):
                return f"{self.path}: no permission to read it."
            if not quick and sha256_file(self.path, advance) != self.sha256:
                return f"{self.path}: its content is not what was written (SHA-256 differs from {self.record})."
        except (FileNotFoundError, ValueError):
            return f"{self.path}: missing, though {self.record} names it."
        except OSError as problem:
            return f"{self.path}: cannot be read ({problem.strerror})."
        return None
