"""Fit the constants of the step-time model on published runs, and say how well they predict runs that were left out.

    python benchmarks/calibrate_throughput.py [--write]

Each constant has a prior, because published runs do not say everything (large micro-batches hide launches, overlapped
communication shows only where it is too much). Errors are robust: one row of many per cent counts little more than one
of twenty. `--write` stores the constants that were fitted without each chip beside the cases, where
`benchmarks/planner.py` reads them; the ones fitted on everything belong into `firstlight.planning.calibration.DEFAULT`,
which a test compares with the file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from common import machine
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.hardware import find_device
from firstlight.planning.step_time import StepPredictor
from firstlight.planning.typical import RUN_SHARE, typical_device_hours
from planner_cases.answer import Case, UnansweredError
from planner_cases.described import Run, runs_of
from planner_cases.throughput import LEFT_OUT, chip, only_steps

CASES = Path(__file__).with_name("planner_cases") / "published.json"
PRIORS = {
    "matmul": (0.85, 0.10),
    "attention": (0.80, 0.20),
    "memory": (0.75, 0.15),
    "network": (0.75, 0.15),
    "overlap": (0.85, 0.10),
    "eager": (2.0, 0.30),
    "straggling": (0.01, 0.01),
}
"""Mean and standard deviation. Copies reach 80 to 90 % of an A100's and H100's bandwidth, collectives of NCCL 75 to
100 % of a link (Azure, AI-benchmarking-guide); the rest are guesses."""
MEASURING_ERROR, ROBUST_FROM = 0.10, 0.15
"""Of the logarithm of a speed: what a row is off by chance; from where a row counts less."""
ONE_SOURCE = "llmfoundry"
OTHERS_WEIGHT = 2.0
"""llm-foundry has most rows; those of other software, closer to today's, count so many times as much."""
CATEGORIES = "throughput-measured", "memory+throughput-measured", "throughput", "throughput+activation"


class Rows:
    """Published runs, each with its predictor."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.runs: list[Run] = []
        for case in cases:
            if case["category"] in CATEGORIES:
                try:
                    self.runs += runs_of(case)
                except UnansweredError:
                    continue
        self.predictors: list[StepPredictor] = [run.predictor() for run in self.runs]

    def where(self, chosen: Callable[[Run], bool]) -> list[int]:
        """Their numbers."""
        return [number for number, run in enumerate(self.runs) if chosen(run)]

    def log_errors(self, calibration: Calibration, numbers: Sequence[int]) -> np.ndarray:
        """log(predicted / measured speed)."""
        errors = []
        for number in numbers:
            predictor, run = self.predictors[number], self.runs[number]
            predictor.calibrate(calibration)
            errors.append(math.log(run.predict(predictor).tokens_per_second_per_device / run.tokens_per_second))
        return np.array(errors)

    def fit(self, numbers: Sequence[int]) -> Calibration:
        """The constants for some rows, with the spread of what remains."""
        weights = np.array([1.0 if self.of_one_source(n) else OTHERS_WEIGHT for n in numbers]) ** 0.5

        def residuals(logs: np.ndarray) -> np.ndarray:
            errors = self.log_errors(_calibration(logs), numbers)
            robust = np.sign(errors) * ROBUST_FROM * np.sqrt(2 * (np.sqrt(1 + (errors / ROBUST_FROM) ** 2) - 1))
            priors = [
                (log - math.log(mean)) / (deviation / mean)
                for log, (mean, deviation) in zip(logs, PRIORS.values(), strict=True)
            ]
            return np.concatenate([weights * robust / MEASURING_ERROR, priors])

        start = np.log([mean for mean, _ in PRIORS.values()])
        found = least_squares(residuals, start, diff_step=1e-3, xtol=1e-4, ftol=1e-5, max_nfev=20)
        return _calibration(found.x)

    def of_one_source(self, number: int) -> bool:
        """Whether it is llm-foundry's."""
        return self.runs[number].case_id.startswith(ONE_SOURCE)


def main() -> None:
    """Print the constants, the errors with each chip and each device left out, and the share of whole runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--write", action="store_true", help="store the fits without each chip")
    arguments = parser.parse_args()
    cases = json.loads(arguments.cases.read_text(encoding="utf-8"))["cases"]
    rows = Rows(cases)
    everything = rows.fit(range(len(rows.runs)))
    left_out: dict[str, Calibration] = {}
    errors: dict[int, float] = {}
    print(f"{len(rows.runs)} rows; {machine()}\n\nleft out: chip")
    for name in sorted({chip(run.device.name) for run in rows.runs}):
        tested = rows.where(lambda run, name=name: chip(run.device.name) == name)
        left_out[name] = rows.fit(sorted(set(range(len(rows.runs))) - set(tested)))
        errors |= dict(zip(tested, rows.log_errors(left_out[name], tested).tolist(), strict=True))
        _report(rows, name, {number: errors[number] for number in tested})
    spread, layout_spread = _spreads(rows, errors)
    _report(rows, "all, each without its chip", errors)
    print("\nleft out: device")
    by_device: dict[int, float] = {}
    for name in sorted({run.device.name for run in rows.runs}):
        tested = rows.where(lambda run, name=name: run.device.name == name)
        fitted = rows.fit(sorted(set(range(len(rows.runs))) - set(tested)))
        by_device |= dict(zip(tested, rows.log_errors(fitted, tested).tolist(), strict=True))
        _report(rows, name, {number: by_device[number] for number in tested})
    _report(rows, "all, each without its device", by_device)
    print("\nfitted on everything")
    _report(rows, "all", dict(enumerate(rows.log_errors(everything, range(len(rows.runs))).tolist())))
    everything = replace(everything, spread=round(spread, 3), layout_spread=round(layout_spread, 3))
    print(everything)
    fits = {
        name: replace(fit, spread=everything.spread, layout_spread=everything.layout_spread, source=f"without {name}")
        for name, fit in left_out.items()
    }
    print("\nother rows, with their chip left out")
    for number, error in errors.items():
        run = rows.runs[number]
        if not run.case_id.startswith(ONE_SOURCE):
            print(f"  {run.case_id} {run.what}: {100 * math.expm1(error):+.0f} %")
    _whole_runs(cases, everything)
    if arguments.write:
        values: dict[str, Any] = {name: asdict(fit) for name, fit in fits.items()}
        LEFT_OUT.write_text(json.dumps({"everything": asdict(everything), **values}, indent=1) + "\n", encoding="utf-8")


def _calibration(logs: np.ndarray) -> Calibration:
    values = {name: float(f"{value:.4g}") for name, value in zip(PRIORS, np.exp(logs), strict=True)}
    values["overlap"] = min(values["overlap"], 0.99)
    return replace(DEFAULT, **values)


def _report(rows: Rows, name: str, errors: dict[int, float]) -> None:
    for source in (True, False):
        chosen = [error for number, error in errors.items() if rows.of_one_source(number) == source]
        if chosen:
            sizes = [abs(math.expm1(error)) for error in chosen]
            print(
                f"  {name:28s} {'llm-foundry' if source else 'others':12s} {len(chosen):4d} rows  "
                f"median error {100 * statistics.median(sizes):5.1f} %  worst {100 * max(sizes):5.1f} %  "
                f"bias {100 * math.expm1(statistics.median(chosen)):+5.1f} %"
            )


def _spreads(rows: Rows, errors: dict[int, float]) -> tuple[float, float]:
    """Within what two of three rows lie whose chip was left out: of their prediction; and of the middle of their
    group, the rows of one source on one device. The larger one of llm-foundry and the others."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number in errors:
        run = rows.runs[number]
        groups.setdefault((run.case_id.split("-")[0], run.device.name), []).append(number)
    around: dict[int, float] = {}
    for group in groups.values():
        if len(group) > 2:
            middle = statistics.median(errors[number] for number in group)
            around |= {number: errors[number] - middle for number in group}
    return _two_thirds(rows, errors), _two_thirds(rows, around)


def _two_thirds(rows: Rows, errors: dict[int, float]) -> float:
    return max(
        float(
            np.quantile([abs(error) for number, error in errors.items() if rows.of_one_source(number) == source], 2 / 3)
        )
        for source in (True, False)
    )


def _whole_runs(cases: Sequence[Case], calibration: Calibration) -> None:
    """Speed of whole runs over that of predicted steps, and what each is off when its own hours do not count."""
    logs: dict[str, float] = {}
    counted: list[str] = []
    for case in cases:
        if case["category"] == "run-hours":
            inputs, device = case["inputs"], find_device(case["inputs"]["gpu"])
            hours = typical_device_hours(inputs["N"], inputs["D"], device, calibration=calibration).typical
            logs[case["id"]] = math.log(hours * RUN_SHARE / case["published"]["gpu_hours"])
            counted += [case["id"]] * only_steps(case)
    middle, half_width = _shortest_half([logs[name] for name in counted])
    # Half of a normal distribution lies within 0.674 standard deviations.
    print(f"\nwhole runs: RUN_SHARE {math.exp(middle):.3f}, RUN_SPREAD {half_width / 0.674:.3f}")
    errors = {}
    for name, log in logs.items():
        share, _ = _shortest_half([logs[other] for other in counted if other != name])
        errors[name] = math.expm1(log - share)
        print(f"  {name}: {100 * errors[name]:+.0f} % hours{'' if name in counted else ', not counted'}")
    for title, names in (("those counted", counted), ("all", list(logs))):
        median = statistics.median(abs(errors[name]) for name in names)
        print(f"  median error of {title} ({len(names)}), each without itself: {100 * median:.1f} %")


def _shortest_half(values: Sequence[float]) -> tuple[float, float]:
    """(middle, half width) of the narrowest interval that holds more than half of the values."""
    ordered, count = sorted(values), len(values) // 2 + 1
    first = min(range(len(ordered) - count + 1), key=lambda start: ordered[start + count - 1] - ordered[start])
    low, high = ordered[first], ordered[first + count - 1]
    return (low + high) / 2, (high - low) / 2


if __name__ == "__main__":
    main()
