"""What repeated tokens are worth: the law of Muennighoff et al. 2023, "Scaling Data-Constrained Language Models".

A pass over the same text teaches less than the one before: the value of each further pass falls by a constant factor
(arXiv 2305.16264, equation 5 and section 6). Up to 4 epochs the loss is nearly that of new text; by 16 the returns are
small; by 40 they are gone.

Limits: fitted on models of up to 8.7 billion parameters, a corpus (C4, OSCAR) that is repeated as a whole, AdamW
without dropout. Applied to one source of a mixture it is a rule of thumb. Against the paper's own measurements it is
right within 0.01 of loss up to 7 epochs and too kind beyond 14: at 44 epochs the loss of a model of 2.8 billion
parameters rose by 0.85, not by the law's 0.35.
"""

from __future__ import annotations

import math

DECAY_REPETITIONS = 15.387756
"""R*_D: after so many repetitions a token is worth 1/e of a new one (fitted value of the published code)."""

NEARLY_NEW_EPOCHS = 4.0
LITTLE_MORE_EPOCHS = 16.0
NOTHING_MORE_EPOCHS = 40.0
"""Where the paper draws the lines: nearly as good as new; returns diminish fast; returns are gone."""


def effective_tokens(unique_tokens: float, epochs: float, decay_repetitions: float = DECAY_REPETITIONS) -> float:
    """Tokens of new text that teach as much as `epochs` passes over `unique_tokens`.

    D' = U + U·R*·(1 − exp(−R/R*)) with R = epochs − 1 repetitions. Below one epoch nothing is repeated and D' is what
    was read, U·epochs. It never exceeds U·(1 + R*), 16.4 times the text.
    """
    assert unique_tokens >= 0, "tokens are not negative"
    assert epochs >= 0, "epochs are not negative"
    if epochs <= 1:
        return unique_tokens * epochs
    return unique_tokens * (1 - decay_repetitions * math.expm1(-(epochs - 1) / decay_repetitions))


def value_lost(epochs: float, decay_repetitions: float = DECAY_REPETITIONS) -> float:
    """Share of the tokens read that teach nothing: 1 − D'/D, from 0 (up to one epoch) to below 1."""
    return 1 - effective_tokens(1.0, epochs, decay_repetitions) / epochs if epochs > 1 else 0.0


def value_of_next_token(epochs: float, decay_repetitions: float = DECAY_REPETITIONS) -> float:
    """What one more token is worth after `epochs` passes, as a share of a new one: dD'/dD = exp(−R/R*)."""
    return math.exp(-max(0.0, epochs - 1) / decay_repetitions)


def verdict(epochs: float) -> str:
    """The same in words, by the lines that the paper draws."""
    if epochs == 0:
        return "not read"
    if epochs < 1:
        return "read in part"
    if epochs <= NEARLY_NEW_EPOCHS:
        return "new" if epochs == 1 else "nearly as new"
    if epochs <= LITTLE_MORE_EPOCHS:
        return "worth less"
    return "worth little" if epochs <= NOTHING_MORE_EPOCHS else "worth nothing"
