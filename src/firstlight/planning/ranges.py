"""A figure that is known within limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Low, typical and high; between low and high lie about two of three cases."""

    low: float
    typical: float
    high: float

    def __post_init__(self) -> None:
        assert self.low <= self.typical <= self.high, "a range rises"

    def times(self, factor: float) -> Range:
        """All three times a factor above 0."""
        return Range(self.low * factor, self.typical * factor, self.high * factor)
