"""What every tracker is told: numbers of steps, and the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from firstlight.training.trackers.start import Start

Numbers = Mapping[str, float]
"""Values by key; nested keys are joined by '/'."""


class Tracker(ABC):
    """One run in one tracker. Every call may raise what the tracker's package raises; it is then made again later."""

    replaces = False
    """Whether a step before the last one takes the place of all from it on; else none may come again."""
    identity = ""
    """By which a later process finds the run again."""
    place = ""
    """Where its curves are to be seen: an address, or a command."""

    @abstractmethod
    def __init__(self, start: Start) -> None:
        """Begin the run, or go on with the one that `start.identity` names."""

    @abstractmethod
    def write(self, step: int, numbers: Numbers) -> None:
        """Numbers of one step; two calls may have the same step."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """The end of this process's part; finished: the run has reached its last step."""
