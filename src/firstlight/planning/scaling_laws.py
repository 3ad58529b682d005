"""Loss from parameters and tokens, and how to divide compute between them: the laws of Hoffmann and of later papers.

`ParametricLaw` is L(N, D) = E + A/N^α + B/D^β with C = 6·N·D (Hoffmann et al. 2022, "Chinchilla", arXiv 2203.15556,
equations 2 to 4), N all parameters, D tokens that are not repeated, L in nats per token of their own text and
tokenizer. Losses of two laws are therefore not comparable; what a law says of the best N, of differences and of
penalties is what it is for. Within about 10²⁴ FLOPs the laws are measured, beyond they are extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

TOKENS_PER_PARAMETER = 20.0
"""Hoffmann et al. 2022, table 3: 20.0 at 400 million parameters to 22.4 at 67 billion."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Parameters N and tokens D of a run."""

    parameters: float
    tokens: float

    @property
    def tokens_per_parameter(self) -> float:
        """D/N."""
        return self.tokens / self.parameters

    @property
    def flops(self) -> float:
        """C = 6·N·D."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True, slots=True)
class Frontier:
    """The best use of compute as power laws: N = G·(C/6)^a and D = (C/6)^(1−a)/G (Hoffmann et al., equation 4)."""

    coefficient: float
    """G."""
    exponent: float
    """a; that of the tokens is 1 − a."""

    @classmethod
    def through(cls, rows: Sequence[tuple[float, float, float]]) -> Frontier:
        """The line along rows (N, C, D) of a table, all three rounded, so that C/6 and N·D both say the compute.

        The slope is that of least squares of log N over the mean of their logarithms; the line lies midway between the
        rows that are furthest to either side of it, so that the largest error is least.
        """
        points = [
            ((math.log(flops / 6) + math.log(parameters * tokens)) / 2, math.log(parameters))
            for parameters, flops, tokens in rows
        ]
        mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
        heights = [y - slope * x for x, y in points]
        return cls(math.exp((min(heights) + max(heights)) / 2), slope)

    @classmethod
    def of_tokens(cls, coefficient: float, exponent: float) -> Frontier:
        """From a law of the best number of tokens, D = coefficient · C^exponent."""
        return cls(6**-exponent / coefficient, 1 - exponent)

    def allocation(self, flops: float) -> Allocation:
        """N and D for a budget in FLOPs."""
        parameters = self.coefficient * (flops / 6) ** self.exponent
        return Allocation(parameters, flops / 6 / parameters)

    def for_parameters(self, parameters: float) -> Allocation:
        """The budget for which this N is best, and its D."""
        return self._with_compute((parameters / self.coefficient) ** (1 / self.exponent))

    def for_tokens(self, tokens: float) -> Allocation:
        """The budget for which this D is best, and its N."""
        return self._with_compute((tokens * self.coefficient) ** (1 / (1 - self.exponent)))

    def _with_compute(self, compute_over_six: float) -> Allocation:
        parameters = self.coefficient * compute_over_six**self.exponent
        return Allocation(parameters, compute_over_six / parameters)


@dataclass(frozen=True, slots=True)
class Overtraining:
    """What it costs to train a model that is smaller (or larger) than the best one for its compute."""

    best: Allocation
    """The best N and D for the same compute."""
    loss: float
    best_loss: float
    same_loss: Allocation
    """The least compute that reaches `loss`."""

    @property
    def loss_penalty(self) -> float:
        """How much higher the loss is than the best one for this compute, nats per token."""
        return self.loss - self.best_loss

    @property
    def wasted_compute(self) -> float:
        """Share of the compute that the best model would not need for the same loss; 0 for the best one."""
        return max(0.0, 1 - self.same_loss.flops / self.best.flops)


@dataclass(frozen=True, slots=True)
class ParametricLaw:
    """L(N, D) = E + A/N^α + B/D^β."""

    name: str
    E: float
    """Loss that no model goes below: the entropy of the text."""
    A: float
    B: float
    alpha: float
    beta: float

    @classmethod
    def from_logarithms(cls, name: str, a: float, b: float, e: float, alpha: float, beta: float) -> ParametricLaw:
        """From what is fitted: the logarithms of A, B and E."""
        return cls(name, math.exp(e), math.exp(a), math.exp(b), alpha, beta)

    @property
    def frontier(self) -> Frontier:
        """a = β/(α+β), G = (αA/(βB))^(1/(α+β)) (equation 4)."""
        total = self.alpha + self.beta
        return Frontier((self.alpha * self.A / (self.beta * self.B)) ** (1 / total), self.beta / total)

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> Allocation:
        """N and D of least loss for a budget in FLOPs."""
        return self.frontier.allocation(flops)

    def best_loss(self, flops: float) -> float:
        """Least loss for a budget in FLOPs."""
        best = self.optimum(flops)
        return self.loss(best.parameters, best.tokens)

    def tokens_to_reach(self, loss: float, parameters: float) -> float:
        """Tokens after which a model of N parameters has this loss; infinite where it never has."""
        left = loss - self.E - self.A / parameters**self.alpha
        return (self.B / left) ** (1 / self.beta) if left > 0 else math.inf

    def compute_to_reach(self, loss: float) -> Allocation:
        """The least compute that reaches a loss, as N and D; infinite where none does."""
        if loss <= self.E:
            return Allocation(math.inf, math.inf)
        # Along the frontier the loss falls with compute, and its logarithm is nearly straight: halve the interval.
        low, high = 0.0, 200.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.best_loss(10.0**middle) > loss else (low, middle)
        return self.optimum(10.0**high)

    def overtraining(self, parameters: float, tokens: float) -> Overtraining:
        """What N parameters and D tokens cost against the best use of the same compute."""
        flops, loss = 6 * parameters * tokens, self.loss(parameters, tokens)
        return Overtraining(self.optimum(flops), loss, self.best_loss(flops), self.compute_to_reach(loss))

    def extra_compute(self, parameters: float, flops: float) -> float:
        """Compute that a model of N parameters needs for the loss of the best model of `flops`, as a multiple of it.

        Infinite where it cannot. Half the best size costs some tens of per cent more, a quarter several times as much.
        """
        return 6 * parameters * self.tokens_to_reach(self.best_loss(flops), parameters) / flops


CHINCHILLA_ROUNDED = ParametricLaw("chinchilla-rounded", 1.69, 406.4, 410.7, 0.34, 0.28)
"""As printed (equation 10). Two digits of an exponent are too few: D/N reads 93 where the next one has 59."""
CHINCHILLA = ParametricLaw.from_logarithms("chinchilla", 6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)
"""Approach 3 with the digits of the paper's TeX source, as the notebook of Besiroglu et al. quotes them."""
BESIROGLU = ParametricLaw.from_logarithms("besiroglu", 6.17795598, 7.64273236, 0.59711196, 0.34781303, 0.36585412)
"""The same form fitted anew to 240 points of the paper's figure 4 (Besiroglu et al. 2024, arXiv 2404.10102): it agrees
with approaches 1 and 2, which Hoffmann's own fit does not. Standard errors: E 0.026, A 124.5, B 1293, α 0.015, β 0.021;
a 0.513 ± 0.020."""
BESIROGLU_ROUNDED = ParametricLaw("besiroglu-rounded", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""The same as the paper prints it; losses differ in the fourth digit."""
PARAMETRIC_LAWS = {law.name: law for law in (CHINCHILLA_ROUNDED, CHINCHILLA, BESIROGLU, BESIROGLU_ROUNDED)}


@dataclass(frozen=True, slots=True)
class Exponents:
    """Exponents of N and D in C as printed, with their intervals from the 10th to the 90th percentile."""

    parameters: float
    tokens: float
    parameters_interval: tuple[float, float]
    tokens_interval: tuple[float, float]


CHINCHILLA_EXPONENTS = {
    1: Exponents(0.50, 0.50, (0.488, 0.502), (0.501, 0.512)),
    2: Exponents(0.49, 0.51, (0.462, 0.534), (0.483, 0.529)),
    3: Exponents(0.46, 0.54, (0.454, 0.455), (0.542, 0.543)),
}
"""Hoffmann et al. 2022, table 2, by approach."""
_APPROACH_1 = (
    *((400e6, 1.92e19, 8.0e9), (1e9, 1.21e20, 20.2e9), (10e9, 1.23e22, 205.1e9), (67e9, 5.76e23, 1.5e12)),
    *((175e9, 3.85e24, 3.7e12), (280e9, 9.90e24, 5.9e12), (520e9, 3.43e25, 11.0e12), (1e12, 1.27e26, 21.2e12)),
    (10e12, 1.30e28, 216.2e12),
)
_APPROACH_2 = (
    *((400e6, 1.84e19, 7.7e9), (1e9, 1.20e20, 20.0e9), (10e9, 1.32e22, 219.5e9), (67e9, 6.88e23, 1.7e12)),
    *((175e9, 4.54e24, 4.3e12), (280e9, 1.18e25, 7.1e12), (520e9, 4.19e25, 13.4e12), (1e12, 1.59e26, 26.5e12)),
    (10e12, 1.75e28, 292.0e12),
)
CHINCHILLA_FRONTIERS = {
    1: Frontier.through(_APPROACH_1),
    2: Frontier.through(_APPROACH_2),
    3: CHINCHILLA.frontier,
}
"""Hoffmann et al. 2022 by approach. For 1 and 2 the paper prints exponents of two digits and no coefficients, so the
line is the one along its tables 3 and A3, off by at most 5 % of a printed C or D (the row of 67 billion). Approach 3 is
the parametric law: it gives the table's tokens 6 to 19 % too high, and no published set of constants gives them."""
LLAMA_3 = Frontier.of_tokens(0.29, 0.53)
"""Best tokens 0.29·C^0.53 (Llama Team 2024, arXiv 2407.21783, section 3.2.1). The constants are rounded: at 3.8e25
FLOPs they give 10.5 trillion tokens where the paper says 16.55."""


def chinchilla_frontier(approach: int, exponent: float | None = None) -> Frontier:
    """The frontier of an approach (1, 2 or 3); exponent: another a, as table 2 has it, with the same coefficient."""
    frontier = CHINCHILLA_FRONTIERS[approach]
    return frontier if exponent is None else replace(frontier, exponent=exponent)


@dataclass(frozen=True, slots=True)
class OvertrainingLaw:
    """L(N, M) = α·N^b + β·6^(b/2)·(M·N)^b + E, with M = D/N tokens per parameter (Gadre et al. 2024, arXiv 2403.08540).

    Hoffmann's form with equal exponents, written in M: all lines of equal M are parallel, which is why a few small
    runs tell how far a large model may be overtrained. N is all parameters; validation on C4.
    """

    alpha: float
    beta: float
    exponent: float
    """b, below 0."""
    E: float

    def loss(self, parameters: float, tokens_per_parameter: float) -> float:
        """Nats per token on C4."""
        scale = self.beta * 6 ** (self.exponent / 2)
        tokens = tokens_per_parameter * parameters
        return self.alpha * parameters**self.exponent + scale * tokens**self.exponent + self.E


GADRE = {
    "c4_original": OvertrainingLaw(113.69260425, 189.51552306, -0.24247224, 1.50826055),
    "rpj": OvertrainingLaw(166.21, 366.69, -0.27285, 1.83665),
    "rw_original": OvertrainingLaw(125.10, 246.21, -0.25439, 1.73446),
}
"""By training text: C4, RedPajama, RefinedWeb. Fitted to the five small runs that the paper's repository fits to, of
the 104 runs that it publishes (mlfoundations/scaling)."""

CEREBRAS_GPT_SCALE, CEREBRAS_GPT_EXPONENT, CEREBRAS_GPT_FLOOR = 5.984e22, -0.0737, 0.5066


def cerebras_gpt_loss(flops: float) -> float:
    """Loss on the Pile of models with 20 tokens per parameter, L = (C/5.984e22)^-0.0737 + 0.5066, nats per token.

    Dey et al. 2023, Cerebras-GPT (arXiv 2304.03208). C is all training FLOPs, embeddings and attention among them.
    """
    return (flops / CEREBRAS_GPT_SCALE) ** CEREBRAS_GPT_EXPONENT + CEREBRAS_GPT_FLOOR
