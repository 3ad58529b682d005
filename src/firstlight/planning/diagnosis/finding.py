"""What a rule says: what was seen, where, how bad it is and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""Most severe first. problem: the run is failing or lost something; warning: it costs quality or time, or will; note:
worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One thing that a rule has seen."""

    kind: str
    """What it is, in a few words."""
    severity: Severity
    where: tuple[int, int] | None
    """First and last step; None where it is not a matter of steps."""
    evidence: str
    """The numbers, in one sentence."""
    remedy: str
    """What to change: settings by name."""
    examples: tuple[str, ...] = ()
    """Single cases, such as the samples of a step and how their text begins; text of others, not made printable."""


def listed(names: list[str], most: int = 4) -> str:
    """'a, b and 3 more'."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
