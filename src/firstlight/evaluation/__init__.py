"""What a model has learned: perplexity and bits per byte on held-out text, and text it writes itself."""

from __future__ import annotations

from firstlight.evaluation.perplexity import Score, evaluate_pretraining, evaluate_split

__all__ = ["Score", "evaluate_pretraining", "evaluate_split"]
