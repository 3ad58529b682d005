"""What every step of a corpus has in common: which documents it looks at."""

from __future__ import annotations

from firstlight.config.base import Section


class StepConfig(Section):
    """A step over documents; by default it looks at all of them."""

    sources: list[str] = []
    """Only documents of these sources; empty: of all."""
    except_sources: list[str] = []
    """Not documents of these sources."""
    languages: list[str] = []
    """Only documents whose metadata `language` is one of these (ISO 639-1, as `en`); empty: of all."""
