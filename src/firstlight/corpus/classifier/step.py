"""The classifier as a step: every document is marked with its score, and dropped or drawn by it."""

from __future__ import annotations

import hashlib

from firstlight.config.text_steps import Classifier
from firstlight.corpus.classifier.model import TrainedClassifier
from firstlight.corpus.step import Block, Result

LOW_SCORE = "low score"
NOT_DRAWN = "not drawn by score"
_DIGITS = 4


class ClassifierStep:
    """Writes the score into the metadata, rounded to four digits, and judges by that rounded score."""

    def __init__(self, config: Classifier) -> None:
        """DataError when the folder of the model cannot be read."""
        self.config = config
        self._model = TrainedClassifier.load(config.model)

    def apply(self, block: Block) -> Result:
        """Reasons "low score" and "not drawn by score"; a document stays when it passes both settings."""
        scores = [round(float(score), _DIGITS) for score in self._model.score_block(block)]
        return Result(
            reasons=[self._reason(text, score) for text, score in zip(block.texts, scores, strict=True)],
            metadata=[
                {**metadata, self.config.field: score} for metadata, score in zip(block.metadata, scores, strict=True)
            ],
        )

    def _reason(self, text: str, score: float) -> str | None:
        if self.config.min_score is not None and score < self.config.min_score:
            return LOW_SCORE
        alpha = self.config.pareto_alpha
        if alpha is not None and uniform(text, self.config.seed) >= (2 - score) ** -alpha:
            return NOT_DRAWN
        return None


def uniform(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed alone, evenly spread over texts."""
    digest = hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


STEPS = {Classifier: ClassifierStep}
