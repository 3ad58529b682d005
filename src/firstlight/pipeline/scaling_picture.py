"""The picture of a fitted law: measured runs and the law at their sizes, and losses at equal compute."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.pipeline.scaling_report import FitReport
from firstlight.support.console import human_count, note
from firstlight.support.files import atomic_file

CURVES = 5
"""Curves of equal compute."""


def draw_fit(report: FitReport, path: Path) -> None:
    """Two panels as an SVG: loss over tokens with a curve for each size; loss over size with a curve for each budget.

    Says so and draws nothing where matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        note(f"no {path.name}: the picture needs `matplotlib`; pip install 'firstlight[corpus]'.")
        return
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with matplotlib.rc_context({"svg.hashsalt": "firstlight", "font.family": "sans-serif", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_sizes(left, report)
        _draw_budgets(right, report)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: human_count(number)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=7)
        with atomic_file(path) as handle:
            figure.savefig(handle, format="svg", metadata={"Date": None, "Creator": None})
    note(f"picture: {path}")


def _draw_sizes(axes: Any, report: FitReport) -> None:
    """Measured runs, the law at their sizes, and held-out ones as stars."""
    law, measured = report.fit.law, report.fit.measured
    held_out = [run for run, _ in report.held_out]
    sizes = sorted({run.parameters for run in (*measured, *held_out)})
    tokens = [run.tokens for run in (*measured, *held_out)]
    along = np.geomspace(min(tokens) / 1.3, max(tokens) * 1.3, 60)
    for size, color in zip(sizes, _colors(len(sizes)), strict=True):
        mine = [run for run in measured if run.parameters == size]
        other = [run for run in held_out if run.parameters == size]
        axes.plot(along, [law.loss(size, d) for d in along], color=color, linewidth=1, linestyle="-" if mine else "--")
        axes.plot([r.tokens for r in mine], [r.loss for r in mine], "o", color=color, markersize=4)
        axes.plot([r.tokens for r in other], [r.loss for r in other], "*", color=color, markersize=11)
        label = f"N = {human_count(size)}" + (", held out" if other else "")
        axes.plot([], [], "*" if other and not mine else "o", color=color, label=label, markersize=5)
    axes.set_xlabel("tokens D")
    axes.set_ylabel("loss, nats per held-out token")
    axes.set_title("Measured runs and the law", loc="left", fontsize=10)


def _draw_budgets(axes: Any, report: FitReport) -> None:
    """Loss over N for equal compute, the best N of each, and the line through them."""
    law, measured = report.fit.law, report.fit.measured
    runs = [*measured, *(run for run, _ in report.held_out)]
    compute = [6 * run.parameters * run.tokens for run in runs]
    sizes = [run.parameters for run in runs]
    budgets = np.geomspace(min(compute), max(compute), CURVES)
    lowest, highest = min(run.loss for run in runs), max(run.loss for run in runs)
    best = [law.optimum(budget) for budget in budgets.tolist()]
    # The best sizes of a law that the runs hardly determine may lie far away.
    most = min(10 * max(sizes), max(*sizes, *(one.parameters for one in best)))
    least = max(min(sizes) / 10, min(*sizes, *(one.parameters for one in best)))
    along = np.geomspace(least / 1.5, most * 1.5, 80)
    for budget, color in zip(budgets.tolist(), _colors(CURVES), strict=True):
        losses = np.array([law.loss(n, budget / (6 * n)) for n in along])
        shown = losses < 1.1 * highest
        axes.plot(along[shown], losses[shown], color=color, linewidth=1, label=f"{budget:.0e} FLOPs")
    axes.plot(
        [one.parameters for one in best],
        [law.loss(one.parameters, one.tokens) for one in best],
        "D-",
        color="#444444",
        markersize=4,
        linewidth=0.8,
        label="best N",
    )
    span = math.log(max(compute) / min(compute)) or 1.0
    shades = _colors(101)
    for run, flops in zip(runs, compute, strict=True):
        shade = shades[round(100 * math.log(flops / min(compute)) / span)]
        marker = "o" if run in measured else "*"
        axes.plot([run.parameters], [run.loss], marker, color=shade, markersize=4 if marker == "o" else 10)
    axes.set_ylim(lowest - 0.1 * (highest - lowest), highest + 0.1 * (highest - lowest))
    axes.set_xlim(along[0], along[-1])
    axes.set_xlabel("parameters N")
    axes.set_title("Equal compute, C = 6·N·D", loc="left", fontsize=10)


def _colors(count: int) -> list[Any]:
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    return [scale(0.9 * place / max(1, count - 1)) for place in range(count)]
