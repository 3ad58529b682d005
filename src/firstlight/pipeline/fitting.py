"""The verb `scaling fit`: from finished runs or a table to a law, and what it says of other runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstlight.pipeline.measured_runs import Counted, read_measured
from firstlight.pipeline.scaling_report import FitReport
from firstlight.planning.scaling_fit import SAMPLES, fit_scaling_law, hold_out
from firstlight.support.errors import ConfigError


def fit_runs(
    paths: Sequence[str | Path],
    *,
    counted: Counted = "matmul",
    held_out: int = 0,
    predict: Sequence[tuple[float, float]] = (),
    budgets: Sequence[float] = (),
    samples: int = SAMPLES,
    seed: int = 0,
) -> FitReport:
    """Fit L(N, D) to runs, folders of runs and tables, without the `held_out` ones of most compute.

    predict: (N, D) of runs to come. budgets: FLOPs to divide. DataError where the runs cannot determine the law.
    """
    tables = [path for path in map(Path, paths) if path.is_file()]
    if tables and counted != "matmul":
        raise ConfigError(
            f"{tables[0]}: the parameters of a table are taken as they are; leave --parameters {counted} out, or give "
            "the folders of the runs."
        )
    measured = read_measured(paths, counted)
    if not 0 <= held_out < max(1, len(measured)):
        raise ConfigError(f"--hold-out {held_out} leaves none of the {len(measured)} runs to fit to.")
    fitted, left_out = hold_out(measured, held_out)
    fit = fit_scaling_law(fitted, samples=samples, seed=seed)
    return FitReport(
        fit,
        "given" if len(tables) == len(paths) else counted,
        [(run, fit.predict(run.parameters, run.tokens)) for run in left_out],
        [(n, d, fit.predict(n, d)) for n, d in predict],
        [fit.optimum(flops) for flops in budgets],
    )
