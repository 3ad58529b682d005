"""What the scaling laws together say of one run: loss, the best use of its compute, learning rate and batch.

The laws were fitted on other text and tokenizers, so their losses are a range and not a forecast; a law that
`firstlight scaling fit` makes of one's own runs is better. All are of models that predict the next token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firstlight.config import ModelConfig
from firstlight.planning import kaplan
from firstlight.planning.hyperparameter_laws import suggestions
from firstlight.planning.scaling_laws import (
    BESIROGLU,
    CHINCHILLA,
    CHINCHILLA_FRONTIERS,
    GADRE,
    Allocation,
    Overtraining,
)
from firstlight.planning.shape import Shape

LossLaw = Callable[[Shape, float], float]
LOSS_LAWS: dict[str, LossLaw] = {
    "Hoffmann 2022": lambda shape, tokens: CHINCHILLA.loss(shape.parameters, tokens),
    "Besiroglu 2024": lambda shape, tokens: BESIROGLU.loss(shape.parameters, tokens),
    "Gadre 2024, C4": lambda shape, tokens: GADRE["c4_original"].loss(shape.parameters, tokens / shape.parameters),
    "Kaplan 2020": lambda shape, tokens: kaplan.loss(shape.non_embedding_parameters, tokens),
}
"""(shape, tokens that are not repeated) → nats per token of the law's own text."""
SMALLEST_FITTED = 40e6
"""Parameters of the smallest models that Hoffmann's and Besiroglu's points come from."""


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the laws say of N parameters and D tokens, by law."""

    shape: Shape
    tokens: float
    """Drawn in training."""
    effective_tokens: float
    """What they are worth in tokens that are not repeated."""
    losses: dict[str, float]
    """Nats per token at the end."""
    optimal: dict[str, Allocation]
    """The best N and D for the same 6·N·D."""
    overtraining: Overtraining
    """By Besiroglu's law."""
    learning_rates: dict[str, float]
    batch_tokens: dict[str, float]
    critical_batch_tokens: float
    """Kaplan et al. 2020, equation 5.3, at the loss of Besiroglu's law."""

    @property
    def parameters(self) -> int:
        """N, all of them."""
        return self.shape.parameters

    @property
    def extrapolated(self) -> bool:
        """Whether the model is smaller than those the laws were fitted on."""
        return self.parameters < SMALLEST_FITTED


def expectations(
    model: ModelConfig, sequence_length: int, tokens: float, effective_tokens: float | None = None
) -> Expectations:
    """For a resolved causal `model`. effective_tokens: of repeated text, what it is worth; unset: all is new."""
    assert model.causal, "the laws are of causal models"
    shape = Shape.of(model)
    worth = tokens if effective_tokens is None else effective_tokens
    flops = 6.0 * shape.parameters * tokens
    approaches = {f"Hoffmann 2022, {number}": CHINCHILLA_FRONTIERS[number].allocation(flops) for number in (1, 2, 3)}
    suggested = suggestions(
        model.num_hidden_layers, model.hidden_size, sequence_length, shape.non_embedding_parameters, tokens
    )
    return Expectations(
        shape=shape,
        tokens=tokens,
        effective_tokens=worth,
        losses={name: law(shape, worth) for name, law in LOSS_LAWS.items()},
        optimal={**approaches, "Besiroglu 2024": BESIROGLU.optimum(flops)},
        overtraining=BESIROGLU.overtraining(shape.parameters, tokens),
        learning_rates={s.law: s.learning_rate for s in suggested if s.learning_rate is not None},
        batch_tokens={s.law: s.batch_tokens for s in suggested if s.batch_tokens is not None},
        critical_batch_tokens=kaplan.critical_batch_tokens(BESIROGLU.loss(shape.parameters, worth)),
    )
