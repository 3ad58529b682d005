"""The fit finds the law that made the losses, says how sure it is, and refuses runs that cannot tell."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstlight.planning.lbfgs import minimize_rows
from firstlight.planning.scaling_fit import (
    MeasuredLoss,
    ScalingFit,
    check_design,
    fit_scaling_law,
    hold_out,
)
from firstlight.planning.scaling_laws import BESIROGLU, ParametricLaw
from firstlight.support.errors import DataError

SIZES = (1e8, 2e8, 4e8, 8e8, 1.6e9)
LENGTHS = (5, 20, 80)
PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "planner_cases" / "published.json"


def ladder_of(
    law: ParametricLaw, noise: float = 0.0, seed: int = 0, sizes: Sequence[float] = SIZES
) -> list[MeasuredLoss]:
    """Losses that a law gives to a ladder, with relative noise."""
    draw = np.random.default_rng(seed)
    return [
        MeasuredLoss(n, n * ratio, law.loss(n, n * ratio) * math.exp(noise * draw.normal()), f"{n:g}-{ratio}")
        for n in sizes
        for ratio in LENGTHS
    ]


@pytest.fixture(scope="module")
def noisy() -> ScalingFit:
    return fit_scaling_law(ladder_of(BESIROGLU, noise=0.002), samples=100)


def gadre(key: str) -> list[MeasuredLoss]:
    """The published runs that were trained on RefinedWeb."""
    cases: list[dict[str, Any]] = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cases"]
    return [
        MeasuredLoss(case["inputs"][key], case["inputs"]["D"], case["published"]["c4_val_loss"])
        for case in cases
        if case["category"] == "loss-measured" and case["inputs"].get("train") == "rw_original"
    ]


def test_the_constants_that_made_the_losses_are_found_again() -> None:
    fit = fit_scaling_law(ladder_of(BESIROGLU), samples=10)
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(fit.law, name) == pytest.approx(getattr(BESIROGLU, name), rel=1e-4)
    assert fit.typical_error < 1e-6
    assert fit.undetermined == []


def test_intervals_hold_the_truth_and_shrink_with_the_noise(noisy: ScalingFit) -> None:
    quiet = fit_scaling_law(ladder_of(BESIROGLU, noise=0.0004), samples=100)
    for name in ("E", "A", "B", "alpha", "beta"):
        wide, narrow = noisy.interval(name), quiet.interval(name)
        assert wide.low <= getattr(BESIROGLU, name) <= wide.high
        assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    said = noisy.predict(1e10, 2e11)
    assert said.low <= BESIROGLU.loss(1e10, 2e11) <= said.high
    assert said.high - said.low < 0.05
    best = noisy.optimum(1e22)
    truth = BESIROGLU.optimum(1e22)
    assert best.parameters.low <= truth.parameters <= best.parameters.high
    assert best.tokens.low <= truth.tokens <= best.tokens.high
    assert 6 * best.parameters.value * best.tokens.value == pytest.approx(1e22)


def test_no_other_minimiser_finds_a_better_end(noisy: ScalingFit) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    n, d, loss = (np.log([getattr(run, key) for run in noisy.measured]) for key in ("parameters", "tokens", "loss"))

    def huber(point: np.ndarray) -> float:
        a, b, e, alpha, beta = point
        size = np.abs(np.logaddexp(np.logaddexp(a - alpha * n, b - beta * d), e) - loss)
        return float(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum() * 1e3)

    law = noisy.law
    ours = np.array([math.log(law.A), math.log(law.B), math.log(law.E), law.alpha, law.beta])
    draw = np.random.default_rng(0)
    for start in (ours, *(ours + draw.normal(0, 0.3, 5) for _ in range(5))):
        other = optimize.minimize(huber, start, method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 50_000})
        assert other.fun > huber(ours) - 1e-5


def test_one_wrong_run_hardly_moves_the_law() -> None:
    runs = ladder_of(BESIROGLU, noise=0.0005)
    spoilt = [replace(run, loss=run.loss * (1.1 if number == 7 else 1)) for number, run in enumerate(runs)]
    fit = fit_scaling_law(spoilt, samples=10)
    assert fit.law.loss(1e10, 2e11) == pytest.approx(BESIROGLU.loss(1e10, 2e11), rel=0.01)
    assert int(np.argmax(np.abs(fit.residuals))) == 7


@pytest.mark.slow
def test_the_order_of_the_runs_does_not_matter_and_the_seed_decides_the_intervals() -> None:
    runs = ladder_of(BESIROGLU, noise=0.002)
    one, turned = (fit_scaling_law(some, samples=20) for some in (runs, runs[::-1]))
    assert turned.law.loss(1e10, 2e11) == pytest.approx(one.law.loss(1e10, 2e11), rel=1e-5)
    again = fit_scaling_law(runs, samples=20)
    assert np.array_equal(again.samples, one.samples)


def test_a_fit_says_what_it_does_not_know(noisy: ScalingFit) -> None:
    assert noisy.undetermined == []
    far_above = fit_scaling_law(ladder_of(replace(BESIROGLU, E=0.3), 0.02, sizes=(1e6, 2e6, 4e6)), samples=60)
    told = " ".join(far_above.undetermined)
    assert "E, the loss that is left, lies anywhere between" in told


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (ladder_of(BESIROGLU)[:5], "5 finished runs cannot determine"),
        (ladder_of(BESIROGLU, sizes=(1e8, 4e8)), "2 different sizes"),
        ([MeasuredLoss(n, 2e9, 3.0) for n in np.geomspace(1e8, 1e9, 7)], "1 different numbers of tokens"),
        ([MeasuredLoss(n, 20 * n, 3.0) for n in np.geomspace(1e8, 1e9, 7)], "about 20 tokens per parameter"),
    ],
)
def test_runs_that_cannot_tell_are_refused(runs: list[MeasuredLoss], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        check_design(runs)


def test_what_is_held_out_is_what_costs_most() -> None:
    runs = ladder_of(BESIROGLU)
    fitted, left_out = hold_out(runs[::-1], 2)
    assert {run.name for run in left_out} == {"1.6e+09-80", "8e+08-80"}
    assert len(fitted) == len(runs) - 2
    assert hold_out(runs, 0)[1] == []


def test_counting_the_head_and_not_the_look_up_predicts_the_largest_published_runs_better() -> None:
    errors = {}
    for key in ("N_no_embed", "N"):
        fitted, left_out = hold_out(gadre(key), 3)
        law = fit_scaling_law(fitted, samples=10).law
        errors[key] = [abs(law.loss(run.parameters, run.tokens) / run.loss - 1) for run in left_out]
    assert max(errors["N_no_embed"]) < 0.04
    assert sum(errors["N_no_embed"]) < 0.75 * sum(errors["N"])


def test_rows_are_minimised_each_for_itself() -> None:
    """Rosenbrock valleys with their minima at different places."""
    places = np.array([0.5, 1.0, 2.0])

    def valleys(points: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = points.T
        away, across = places[rows] - x, y - x**2
        value = away**2 + 100 * across**2
        return value, np.stack([-2 * away - 400 * x * across, 200 * across], axis=1)

    points, values = minimize_rows(valleys, np.full((3, 2), -1.0), tolerance=1e-14)
    assert points[:, 0] == pytest.approx(places, abs=1e-4)
    assert values == pytest.approx(np.zeros(3), abs=1e-8)
