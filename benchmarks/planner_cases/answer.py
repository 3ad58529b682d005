"""What the planner says to one published case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Case = Mapping[str, Any]
"""id, category, source, provenance, inputs, published, perhaps derived, tolerance, note."""


class Comparison(NamedTuple):
    """One figure of a case beside the planner's."""

    what: str
    """Name of the figure in the case, such as published.gpu_hours."""
    expected: float
    found: float
    tolerance: float | None = None
    """Largest relative error that is right for this figure; None: only the category's median counts."""

    @property
    def error(self) -> float:
        """Relative error, without sign."""
        return abs(self.found - self.expected) / abs(self.expected) if self.expected else abs(self.found)


class UnansweredError(Exception):
    """The planner has no function for a case, or the case lacks what one needs; the message says which."""


Answer = Callable[[Case], list[Comparison]]
"""Gives the comparisons of a case, at least one; UnansweredError where there can be none."""
