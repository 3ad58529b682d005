"""What reading gave and what it did not: documents, empty ones, repaired ones and bad lines, counted and shown.

Readers yield a bad line and go on; whoever reads counts with a `Tally`, shows the counts at the end, and stops when
too much was lost. Counts of separate workers add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from firstlight.documents import BadLine, Item, Skipped
from firstlight.support.console import note, warn
from firstlight.support.errors import DataError

EXAMPLES = 3
"""Bad lines that are named."""


@dataclass
class Tally:
    """Counts of one reading; `examples` are the first few bad lines as text."""

    documents: int = 0
    """Documents with text."""
    empty_documents: int = 0
    """Documents whose text is empty; they are passed over."""
    repaired_documents: int = 0
    """Documents in which invalid UTF-8 became U+FFFD."""
    bad_lines: int = 0
    """Lines, rows or files that could not be read as a document."""
    skipped: int = 0
    """Places that rightly hold no document: empty files, images and redirects among web pages."""
    examples: list[str] = field(default_factory=list)

    def take(self, entry: Item) -> str | None:
        """Count what a reader yields; its text, or None when there is none to use."""
        if isinstance(entry, BadLine):
            self.bad_lines += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{entry.path}:{entry.line}: {entry.reason}")
            return None
        if isinstance(entry, Skipped):
            self.skipped += 1
            return None
        if not entry.text:
            self.empty_documents += 1
            return None
        self.documents += 1
        self.repaired_documents += entry.repaired
        return entry.text

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what another tally's `as_dict` says."""
        for name in ("documents", "empty_documents", "repaired_documents", "bad_lines", "skipped"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.examples = [*self.examples, *counts["examples"]][:EXAMPLES]

    def as_dict(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        return asdict(self)

    def conclude(self, what: str, max_bad_fraction: float) -> None:
        """Show what was lost. DataError when no document is left, or more than `max_bad_fraction` of lines are bad."""
        lines = self.documents + self.empty_documents + self.bad_lines
        named = f" ({'; '.join(self.examples)})" if self.examples else ""
        if self.bad_lines > max_bad_fraction * lines:
            raise DataError(
                f"{what}: {self.bad_lines} of {lines} lines cannot be read, above the allowed share of "
                f"{max_bad_fraction:g}{named}."
            )
        if not self.documents:
            raise DataError(f"{what}: no text at all in {lines} lines{named}.")
        if self.bad_lines:
            warn(f"{what}: {self.bad_lines} of {lines} lines could not be read and were left out{named}.")
        if self.skipped:
            note(f"{what}: {self.skipped} places hold no document by their nature (empty files, pages without text).")
        if self.empty_documents:
            warn(f"{what}: {self.empty_documents} empty documents were left out.")
        if self.repaired_documents:
            warn(f"{what}: invalid UTF-8 in {self.repaired_documents} documents became U+FFFD.")
