"""What a ladder and its law look like: tables for the terminal, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from firstlight.pipeline.ladder import Ladder
from firstlight.pipeline.measured_runs import Counted
from firstlight.planning.scaling_fit import LEVEL, Interval, MeasuredLoss, Optimum, ScalingFit
from firstlight.support.console import human_count, human_seconds, note, out, warn

COUNTED = {
    "matmul": "weights that multiply activations: blocks and head, no look-up in the embedding",
    "blocks": "weights of the blocks, neither embedding nor head",
    "total": "all parameters",
    "given": "as the table has it",
}
_SYMBOLS = {"E": "E", "A": "A", "alpha": "α", "B": "B", "beta": "β", "exponent": "a in N ∝ C^a"}


@dataclass(frozen=True)
class FitReport:
    """A fit and what was asked of it."""

    fit: ScalingFit
    counted: Counted | str
    """What N counts."""
    held_out: Sequence[tuple[MeasuredLoss, Interval]] = ()
    """Runs that were not fitted to, and what the fit said."""
    predicted: Sequence[tuple[float, float, Interval]] = ()
    """(N, D, loss) of runs that are still to come."""
    optima: Sequence[Optimum] = ()


def show_plan(ladder: Ladder) -> None:
    """The rungs before they are trained."""
    table = _table("rung", "width × blocks", "N", "D", "steps", "batch", "lr", "FLOPs", "time", left=2)
    for rung in ladder.rungs:
        config = rung.config
        table.add_row(
            rung.name,
            f"{rung.model.hidden_size} × {rung.model.num_hidden_layers}",
            human_count(rung.parameters),
            human_count(rung.tokens),
            f"{config.steps(1):,}",
            str(config.training.global_batch_size),
            f"{config.optimizer.lr:.2e}",
            f"{rung.flops:.1e}",
            human_seconds(ladder.seconds[rung.name]),
        )
    seconds = sum(ladder.seconds.values())
    table.add_section()
    table.add_row("all", "", "", "", "", "", "", f"{ladder.flops:.1e}", human_seconds(seconds))
    out.print(table)
    note(f"N: {COUNTED['matmul']}. Times are those of a few steps on this machine, without torch.compile.")


def plan_as_dict(ladder: Ladder) -> dict[str, Any]:
    """The same for --json."""
    rungs = [
        {
            "name": rung.name,
            "parameters": rung.parameters,
            "tokens": rung.tokens,
            "flops": rung.flops,
            "seconds": ladder.seconds[rung.name],
            "hidden_size": rung.model.hidden_size,
            "num_hidden_layers": rung.model.num_hidden_layers,
            "total_steps": rung.config.steps(1),
            "global_batch_size": rung.config.training.global_batch_size,
            "lr": rung.config.optimizer.lr,
        }
        for rung in ladder.rungs
    ]
    return {"rungs": rungs, "flops": ladder.flops, "seconds": sum(ladder.seconds.values())}


def show_losses(rows: Sequence[Mapping[str, Any]]) -> None:
    """Finished rungs with their losses: the rows of ladder.json."""
    table = _table("rung", "width × blocks", "N", "D", "D/N", "FLOPs", "lr", "loss", left=2)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['hidden_size']} × {row['num_hidden_layers']}",
            human_count(row["parameters"]),
            human_count(row["tokens"]),
            f"{row['tokens'] / row['parameters']:.1f}",
            f"{row['flops']:.1e}",
            f"{row['lr']:.2e}",
            f"{row['loss']:.4f}",
        )
    out.print(table)


def show_fit(report: FitReport) -> None:
    """The law with its intervals, what it says of other runs, and what it does not know."""
    fit = report.fit
    out.print(f"L(N, D) = E + A/N^α + B/D^β through {len(fit.measured)} runs")
    out.print(f"N: {COUNTED[report.counted]}. D: tokens read. L: nats per held-out token.")
    out.print(f"fit: R² {fit.explained:.4f} of log L, typical error {fit.typical_error:.2%}\n")
    table = _table("constant", "value", f"{LEVEL:.0%} interval", left=1)
    for name, symbol in _SYMBOLS.items():
        interval = fit.interval(name)
        table.add_row(symbol, f"{interval.value:.4g}", f"{interval.low:.4g} to {interval.high:.4g}")
    out.print(table)
    if report.held_out:
        out.print()
        table = _table("held out", "N", "D", "predicted", f"{LEVEL:.0%} interval", "measured", "error", left=1)
        for run, said in report.held_out:
            error = f"{said.value / run.loss - 1:+.2%}"
            table.add_row(run.name, *_place(run.parameters, run.tokens), *_loss(said), f"{run.loss:.4f}", error)
        out.print(table)
    if report.predicted:
        out.print()
        table = _table("N", "D", "predicted loss", f"{LEVEL:.0%} interval", left=0)
        for parameters, tokens, said in report.predicted:
            table.add_row(*_place(parameters, tokens), *_loss(said))
        out.print(table)
    if report.optima:
        out.print()
        table = _table("FLOPs", "at best", "value", f"{LEVEL:.0%} interval", left=2)
        for best in report.optima:
            table.add_row(f"{best.flops:.1e}", "N", *_counted(best.parameters))
            table.add_row("", "D", *_counted(best.tokens))
            table.add_row("", "D/N", f"{best.tokens.value / best.parameters.value:.1f}", "")
            table.add_row("", "loss", *_loss(best.loss))
        out.print(table)
    for sentence in (*fit.undetermined, *_far(report)):
        warn(sentence)


def _far(report: FitReport) -> list[str]:
    """A sentence for each prediction far beyond the runs."""
    most = max(6 * run.parameters * run.tokens for run in report.fit.measured)
    asked = [6 * n * d for n, d, _ in report.predicted] + [best.flops for best in report.optima]
    return [
        f"{flops:.1e} FLOPs is {flops / most:,.0f} times the largest run; the interval knows the noise of these runs, "
        "not whether the law holds so far."
        for flops in sorted(set(asked))
        if flops > 100 * most
    ]


def fit_as_dict(report: FitReport) -> dict[str, Any]:
    """The same for --json; intervals are {value, low, high}."""
    fit = report.fit
    return {
        "law": {name: _interval(fit.interval(name)) for name in _SYMBOLS},
        "parameters_counted": report.counted,
        "interval_level": LEVEL,
        "runs": [
            {"name": run.name, "parameters": run.parameters, "tokens": run.tokens, "loss": run.loss, "residual": miss}
            for run, miss in zip(fit.measured, fit.residuals.tolist(), strict=True)
        ],
        "r_squared": fit.explained,
        "typical_error": fit.typical_error,
        "undetermined": fit.undetermined,
        "held_out": [
            {
                "name": run.name,
                "parameters": run.parameters,
                "tokens": run.tokens,
                "measured": run.loss,
                "predicted": _interval(said),
                "error": said.value / run.loss - 1,
            }
            for run, said in report.held_out
        ],
        "predictions": [{"parameters": n, "tokens": d, "loss": _interval(said)} for n, d, said in report.predicted],
        "optima": [
            {
                "flops": best.flops,
                "parameters": _interval(best.parameters),
                "tokens": _interval(best.tokens),
                "loss": _interval(best.loss),
            }
            for best in report.optima
        ],
    }


def _table(*columns: str, left: int) -> Table:
    """left: how many columns are text; the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def _place(parameters: float, tokens: float) -> tuple[str, str]:
    return human_count(parameters), human_count(tokens)


def _loss(said: Interval) -> tuple[str, str]:
    return f"{said.value:.4f}", f"{said.low:.3f} to {said.high:.3f}"


def _counted(interval: Interval) -> tuple[str, str]:
    return human_count(interval.value), f"{human_count(interval.low)} to {human_count(interval.high)}"


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
