"""What repeated tokens are worth: the law of Muennighoff et al. 2023, "Scaling Data-Constrained Language Models".

A pass over the same text teaches less than the one before: the value of each further pass falls by a constant factor
(arXiv 2305.16264, equation 5 and section 6). Up to 4 epochs the loss is nearly that of new text; by 16 the returns are
small; by 40 they are gone. The same holds for parameters beyond those that the unique text has use for, so the whole
law is Hoffmann's with both numbers replaced by their effective ones. Its N is all parameters; its losses are nats per
token of C4, 6 to 8 % below the authors' own measurements, so only differences between them mean something.

Limits: fitted on models of up to 8.7 billion parameters, a corpus (C4, OSCAR) that is repeated as a whole, AdamW
without dropout. Applied to one source of a mixture it is a rule of thumb. Against the paper's own measurements it is
right within 0.01 of loss up to 7 epochs and too kind beyond 14: at 44 epochs the loss of a model of 2.8 billion
parameters rose by 0.85, not by the law's 0.35.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from firstlight.planning.scaling_laws import Allocation, ParametricLaw

DECAY_REPETITIONS = 15.387756
"""R*_D: after so many repetitions a token is worth 1/e of a new one (fitted value of the published code)."""

DECAY_EXCESS_PARAMETERS = 5.309743
"""R*_N: the same for parameters beyond N_opt(U_D)."""

UNREPEATED = ParametricLaw.from_logarithms("muennighoff", 6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596)
"""The law of new text that repetition is measured against (datablations repository): α = β, so D/N is 19.6 always."""

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


def effective_parameters(parameters: float, unique_tokens: float) -> float:
    """N' = U_N + U_N·R*_N·(1 − exp(−R_N/R*_N)): parameters that count, with R_N = N/U_N − 1.

    U_N is the number that is best for the unique tokens, or N where that is less.
    """
    used = min(parameters, UNREPEATED.frontier.for_tokens(unique_tokens).parameters)
    return used * (1 - DECAY_EXCESS_PARAMETERS * math.expm1(-(parameters / used - 1) / DECAY_EXCESS_PARAMETERS))


def loss(parameters: float, tokens: float, unique_tokens: float) -> float:
    """L(N, D, U): N parameters read D tokens of a text of U, again and again where D is larger; in nats per
    token. Constants of the datablations repository.
    """
    assert parameters > 0, "parameters are positive"
    assert tokens > 0, "tokens are positive"
    assert unique_tokens > 0, "unique tokens are positive"
    useful = effective_parameters(parameters, min(tokens, unique_tokens))
    return UNREPEATED.loss(useful, effective_tokens(unique_tokens, tokens / unique_tokens))


def optimum(flops: float, unique_tokens: float, factors: Iterable[float] | None = None) -> Allocation:
    """N and D of least loss for a budget when there are only U tokens: more epochs rather than more parameters.

    factors: tokens to try, as multiples of those that would be best if all were new; unset: the exact minimum. Never
    fewer tokens than without repetition.
    """
    free = UNREPEATED.optimum(flops)
    if free.tokens <= unique_tokens:
        return free

    def loss_of(factor: float) -> float:
        return loss(free.parameters / factor, free.tokens * factor, unique_tokens)

    best = min(factors, key=loss_of) if factors is not None else _minimum(loss_of, 1.0, 100.0)
    return Allocation(free.parameters / best, free.tokens * best)


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden sections of the logarithm."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = math.log(low), math.log(high)
    while right - left > 1e-9:
        inner, outer = right - ratio * (right - left), left + ratio * (right - left)
        if function(math.exp(inner)) <= function(math.exp(outer)):
            right = outer
        else:
            left = inner
    return math.exp((left + right) / 2)


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
