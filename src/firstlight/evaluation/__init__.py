"""What a model has learned: perplexity, accuracy and bits per byte on held-out text, and what it writes or fills in."""

from __future__ import annotations

from firstlight.evaluation.perplexity import evaluate_pretraining, evaluate_split
from firstlight.evaluation.score import Score, Share
from firstlight.evaluation.scorer import Scorer

__all__ = ["Score", "Scorer", "Share", "evaluate_pretraining", "evaluate_split"]
