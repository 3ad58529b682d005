"""A scaling law of one's own: L(N, D) = E + A/N^α + B/D^β through measured losses, with what it does not know.

The fit is approach 3 of Hoffmann et al. 2022 (arXiv:2203.15556, section 3.3 and appendix D.2): Huber loss (δ = 10⁻³) of
log L, L-BFGS from their grid of starts, the best end counts. Two things are done otherwise. Residuals are summed, not
averaged, as Besiroglu et al. 2024 (arXiv:2404.10102) found necessary for the minimiser not to stop early; and log N and
log D are centred, which changes no law and makes the valley of the minimiser round.

Intervals come from a residual bootstrap: a ladder is a designed experiment, and drawing few runs with replacement would
leave out whole sizes. Each of the samples is the fitted curve with residuals drawn anew, fitted again; the five nearest
to 0 are not drawn, since a fit of five parameters to absolute errors goes through as many runs. The intervals hold what
noise does to the fit, not what is wrong with the form: see `hold_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from firstlight.planning.lbfgs import minimize_rows
from firstlight.planning.scaling_laws import ParametricLaw
from firstlight.support.errors import DataError

HUBER_DELTA = 1e-3
GRID = {"a": (0, 5, 10, 15, 20, 25), "b": (0, 5, 10, 15, 20, 25), "e": (-1, -0.5, 0, 0.5, 1)}
EXPONENTS = (0, 0.5, 1, 1.5, 2)
"""Hoffmann et al. 2022, appendix D.2: starts for log A, log B, log E, and for α and β."""
LEAST_RUNS = 6
LEAST_LEVELS = 3
"""Different sizes and different numbers of tokens; with two, a floor and a power law cannot be told apart."""
SAMPLES = 300
LEVEL = 0.9
"""Of intervals: from the 5th to the 95th percentile."""
_ROUNDS = ((1, 10), (0.2, 50), (0.01, 2000))
"""(share of the starts that are left, iterations of each)."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredLoss:
    """The end of one run."""

    parameters: float
    tokens: float
    loss: float
    """Nats per token."""
    name: str = ""
    flops: float | None = None
    """Model FLOPs of the run where they are known."""


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds it at `LEVEL`, as far as noise goes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Optimum:
    """The best use of a budget: C = 6·N·D."""

    flops: float
    parameters: Interval
    tokens: Interval
    loss: Interval


@dataclass(frozen=True)
class ScalingFit:
    """A law, what it was fitted to, and its bootstrap samples."""

    law: ParametricLaw
    measured: tuple[MeasuredLoss, ...]
    residuals: Matrix
    """[runs]: log of measured over fitted loss."""
    samples: Matrix
    """[samples, 5]: log A, log B, log E, α, β."""
    seed: int

    def interval(self, name: str) -> Interval:
        """Of E, A, B, alpha, beta, or of `exponent`, a in N ∝ C^a."""
        a, b, e, alpha, beta = self.samples.T
        with np.errstate(over="ignore"):
            drawn = {"A": np.exp(a), "B": np.exp(b), "E": np.exp(e), "alpha": alpha, "beta": beta}
        if name == "exponent":
            return _interval(self.law.frontier.exponent, beta / (alpha + beta))
        return _interval(getattr(self.law, name), drawn[name])

    def predict(self, parameters: float, tokens: float) -> Interval:
        """The loss of a run that is still to come, its own noise included."""
        generator = np.random.default_rng((self.seed, 1))
        noise = generator.choice(_widened(self.residuals), len(self.samples))
        logs = _log_loss(self.samples, np.log([parameters]), np.log([tokens]))[:, 0]
        return _interval(self.law.loss(parameters, tokens), np.exp(logs + noise))

    def optimum(self, flops: float) -> Optimum:
        """N and D of least loss for a budget of C = 6·N·D FLOPs."""
        best = self.law.optimum(flops)
        each = [ParametricLaw.from_logarithms("sample", *sample).optimum(flops) for sample in self.samples.tolist()]
        n, d = np.log([[one.parameters, one.tokens] for one in each]).T
        losses = np.exp([_log_loss(s[None], n[i : i + 1], d[i : i + 1])[0, 0] for i, s in enumerate(self.samples)])
        return Optimum(
            flops,
            _interval(best.parameters, np.exp(n)),
            _interval(best.tokens, np.exp(d)),
            _interval(self.law.loss(best.parameters, best.tokens), losses),
        )

    @property
    def typical_error(self) -> float:
        """Root mean square of the residuals, a relative error of the loss; with 5 parameters taken off the count."""
        return float(np.sqrt(np.sum(self.residuals**2) / (len(self.residuals) - 5)))

    @property
    def explained(self) -> float:
        """R² of log loss: 1 − residual over total variance."""
        logs = np.log([run.loss for run in self.measured])
        return float(1 - np.sum(self.residuals**2) / np.sum((logs - logs.mean()) ** 2))

    @property
    def undetermined(self) -> list[str]:
        """What these runs cannot tell, one sentence each."""
        told = []
        floor = self.interval("E")
        if floor.value < 0.05 * min(run.loss for run in self.measured):
            told.append(
                "E, the loss that is left, comes out as nothing: the runs are so far above it that it is not seen."
            )
        elif floor.high - floor.low > 0.5 * floor.value:
            told.append(
                f"E, the loss that is left, lies anywhere between {floor.low:.2f} and {floor.high:.2f}: the runs are "
                "too far above it; larger and longer ones would tell."
            )
        for name, symbol, more in (("alpha", "α", "sizes"), ("beta", "β", "numbers of tokens")):
            value = self.interval(name)
            if value.low < 0.02 or value.high > 3 * value.low:
                told.append(
                    f"{symbol} lies anywhere between {value.low:.2f} and {value.high:.2f}: more {more}, further apart, "
                    "would tell."
                )
        split = self.interval("exponent")
        if split.high - split.low > 0.3:
            told.append(
                f"how to divide compute is open (N ∝ C^{split.low:.2f} to C^{split.high:.2f}); do not take the best N "
                "from this fit."
            )
        return told


def fit_scaling_law(measured: Sequence[MeasuredLoss], *, samples: int = SAMPLES, seed: int = 0) -> ScalingFit:
    """Fit the law. DataError, with what is missing, where the runs cannot determine its five parameters."""
    check_design(measured)
    log_n, log_d, log_l = (np.log([getattr(run, key) for run in measured]) for key in ("parameters", "tokens", "loss"))
    ends = _minima(log_n, log_d, log_l[None], _starts())
    best = ends[0][:1]
    residuals = log_l - _log_loss(best, log_n, log_d)[0]
    generator = np.random.default_rng((seed, 0))
    drawn = generator.choice(_widened(residuals), (samples, len(measured)))
    targets = _log_loss(best, log_n, log_d) + drawn
    resampled = _refit(log_n, log_d, targets, _distinct(ends[0]))
    law = ParametricLaw.from_logarithms("fit", *best[0].tolist())
    return ScalingFit(law, tuple(measured), residuals, resampled, seed)


def check_design(measured: Sequence[MeasuredLoss]) -> None:
    """DataError where no noise-free fit of these runs could be unique."""
    if len(measured) < LEAST_RUNS:
        raise DataError(
            f"{len(measured)} finished runs cannot determine the law's 5 parameters; at least {LEAST_RUNS} are needed, "
            "better 12 or more."
        )
    for key, what in (("parameters", "sizes"), ("tokens", "numbers of tokens")):
        levels = _levels([getattr(run, key) for run in measured])
        if levels < LEAST_LEVELS:
            raise DataError(
                f"the runs have {levels} different {what}; with fewer than {LEAST_LEVELS} a power law and the floor "
                "below it cannot be told apart. Train more of them, a factor of 1.5 or more apart."
            )
    ratios = [run.tokens / run.parameters for run in measured]
    if _levels(ratios, apart=0.2) < 2:
        raise DataError(
            f"all runs have about {sum(ratios) / len(ratios):.3g} tokens per parameter, so A/N^α and B/D^β cannot be "
            "told apart; train some sizes at half and at twice as many (--tokens-per-parameter 10,20,40)."
        )


def hold_out(measured: Sequence[MeasuredLoss], count: int) -> tuple[list[MeasuredLoss], list[MeasuredLoss]]:
    """(the others, the `count` runs of most compute 6·N·D), to fit on the first and predict the second."""
    by_compute = sorted(measured, key=lambda run: run.parameters * run.tokens)
    cut = len(by_compute) - count
    return by_compute[:cut], by_compute[cut:]


def _levels(values: Sequence[float], apart: float = 0.1) -> int:
    """How many different values there are, where those within a factor e^apart of the one below are one."""
    logs = np.sort(np.log(values))
    count, last = 0, -math.inf
    for value in logs.tolist():
        if value - last > apart:
            count, last = count + 1, value
    return count


def _starts() -> Matrix:
    """[4500, 5]: Hoffmann's grid."""
    return np.array(list(product(GRID["a"], GRID["b"], GRID["e"], EXPONENTS, EXPONENTS)), dtype=np.float64)


def _log_loss(parameters: Matrix, log_n: Matrix, log_d: Matrix) -> Matrix:
    """[k, 5], [n], [n] → [k, n]: log(E + A/N^α + B/D^β) from logarithms."""
    a, b, e, alpha, beta = parameters.T[:, :, None]
    return np.logaddexp(np.logaddexp(a - alpha * log_n, b - beta * log_d), e)


def _minima(log_n: Matrix, log_d: Matrix, targets: Matrix, starts: Matrix) -> tuple[Matrix, Matrix]:
    """(points [k, 5], values [k]) that the starts lead to for targets [1, n], best first.

    All starts go a little way, the better ones further, and the best ones to the end.
    """
    points = starts
    for share, iterations in _ROUNDS:
        points = points[: round(share * len(starts))]
        problems = np.zeros(len(points), dtype=np.intp)
        points, values = _descend(log_n, log_d, targets, points, problems, iterations)
        order = np.argsort(values)
        points, values = points[order], values[order]
    return points, values


def _refit(log_n: Matrix, log_d: Matrix, targets: Matrix, starts: Matrix) -> Matrix:
    """[samples, 5]: for each row of targets [samples, n] the best end from a few starts [s, 5]."""
    samples, tries = len(targets), len(starts)
    problems = np.repeat(np.arange(samples), tries)
    points, values = _descend(log_n, log_d, targets, np.tile(starts, (samples, 1)), problems, iterations=1000)
    best = np.argmin(values.reshape(samples, tries), axis=1)
    return points.reshape(samples, tries, 5)[np.arange(samples), best]


def _distinct(points: Matrix, most: int = 4) -> Matrix:
    """The first few ends that differ from one another."""
    kept = [points[0]]
    for point in points[1:]:
        if len(kept) < most and all(np.abs(point - other).max() > 0.05 for other in kept):
            kept.append(point)
    return np.array(kept)


def _descend(
    log_n: Matrix, log_d: Matrix, targets: Matrix, starts: Matrix, problems: NDArray[np.intp], iterations: int
) -> tuple[Matrix, Matrix]:
    """Minima of Σ Huber(log L − target), over δ; problems [k]: which row of targets [m, n] each start is for."""
    centre_n, centre_d = log_n.mean(), log_d.mean()
    x, y = log_n - centre_n, log_d - centre_d

    def objective(points: Matrix, rows: NDArray[np.intp]) -> tuple[Matrix, Matrix]:
        a, b, e, alpha, beta = points.T[:, :, None]
        terms = a - alpha * x, b - beta * y, e + np.zeros_like(x)
        with np.errstate(over="ignore", invalid="ignore"):
            logs = np.logaddexp(np.logaddexp(terms[0], terms[1]), terms[2])
            miss = logs - targets[problems[rows]]
            size = np.abs(miss)
            value = np.where(size <= HUBER_DELTA, miss**2 / (2 * HUBER_DELTA), size - HUBER_DELTA / 2).sum(axis=1)
            slope = np.clip(miss / HUBER_DELTA, -1, 1)
            of_a, of_b, of_e = (slope * np.exp(term - logs) for term in terms)
            gradient = np.stack([of_a.sum(1), of_b.sum(1), of_e.sum(1), -(of_a * x).sum(1), -(of_b * y).sum(1)], axis=1)
        return value, gradient

    shift = np.array([centre_n, centre_d])
    centred = starts.copy()
    centred[:, :2] -= centred[:, 3:] * shift
    points, values = minimize_rows(objective, centred, iterations=iterations)
    points = points.copy()
    points[:, :2] += points[:, 3:] * shift
    return points, values


def _widened(residuals: Matrix) -> Matrix:
    """Residuals as wide as the noise: without the 5 nearest to 0, of runs that the fit goes through."""
    kept = residuals[np.argsort(np.abs(residuals))[5:]]
    return kept * np.sqrt(np.sum(residuals**2) / np.sum(kept**2)) if kept.any() else kept


def _interval(value: float, drawn: Matrix) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
