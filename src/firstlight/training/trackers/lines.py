"""Reading a file of JSON lines while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class NewLines:
    """Iterates over the lines that were appended since the last time; a line is given up only when it was used.

    One that is cut short waits for its end; one that is no JSON object is passed over.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        """offset: byte to begin at."""
        self.path, self.offset = path, offset

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            return
        with handle:
            handle.seek(self.offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    yield value
                self.offset += len(line)
