"""FineWeb-2's rules for Mandarin (Penedo et al. 2025): language score, repetition, lines, words, in that order."""

from __future__ import annotations

from typing import Any

from firstlight.config.rules import FineWeb2Mandarin
from firstlight.corpus.rules.lines import LinesStep
from firstlight.corpus.rules.quality import QualityStep
from firstlight.corpus.rules.repetition import RepetitionStep
from firstlight.corpus.step import Block, Result

UNCERTAIN = "uncertain language"


class MandarinStep:
    """The first rule that a document fails gives the reason."""

    def __init__(self, config: FineWeb2Mandarin) -> None:
        self.config = config
        self._steps = RepetitionStep(config), LinesStep(config), QualityStep(config)

    def apply(self, block: Block) -> Result:
        """Reasons "uncertain language" and those of the three other steps."""
        reasons: list[str | None] = [self._by_score(about.get("language_score")) for about in block.metadata]
        for step in self._steps:
            judged = step.apply(block).reasons
            reasons = [first or second for first, second in zip(reasons, judged, strict=True)]
        return Result(reasons)

    def _by_score(self, score: Any) -> str | None:
        least = self.config.min_language_score
        is_score = isinstance(score, int | float) and not isinstance(score, bool)
        return UNCERTAIN if least is not None and is_score and score < least else None
