"""Losses of finished runs with their sizes and lengths: from run folders, folders of them, or a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from firstlight.config import ModelConfig
from firstlight.pipeline.diagnosing import read_lines
from firstlight.planning.flops import block_matrices, matmul_parameters, parameter_count, training_flops_per_token
from firstlight.planning.scaling_fit import MeasuredLoss
from firstlight.support.console import warn
from firstlight.support.errors import DataError
from firstlight.support.files import read_json
from firstlight.training.run_folder import RunFolder

Counted = Literal["matmul", "blocks", "total"]
"""What N counts: weights that multiply activations (blocks and head), those of the blocks alone, or all parameters."""

_COLUMNS = {
    "parameters": ("parameters", "n", "params"),
    "tokens": ("tokens", "d"),
    "loss": ("loss", "validation_loss", "l"),
}
"""Names that a column of a table may have."""


def read_measured(paths: Sequence[str | Path], counted: Counted = "matmul") -> list[MeasuredLoss]:
    """Every finished run below `paths`, and every row of the tables (.json, .jsonl, .csv) among them.

    Runs that are not finished or have no validation are left out, with a line that says so. A row names parameters,
    tokens and loss (or N, D, L); its parameters are taken as they are. DataError where a path is none of these.
    """
    measured: list[MeasuredLoss] = []
    for path in map(Path, paths):
        if path.is_file():
            measured += _rows(path)
            continue
        runs = runs_below(path)
        if not runs:
            raise DataError(f"{path}: neither a run folder, nor a folder of runs, nor a table (.json, .jsonl, .csv).")
        for run in runs:
            found = measured_run(run, counted)
            if found is None:
                warn(f"{run.path}: not finished, or without validation; it is left out.")
            else:
                measured.append(found)
    return measured


def runs_below(path: Path) -> list[RunFolder]:
    """The run folder itself, or those directly below it, by name."""
    if (path / "config.yaml").is_file():
        return [RunFolder(path)]
    if not path.is_dir():
        return []
    return [RunFolder(child) for child in sorted(path.iterdir()) if (child / "config.yaml").is_file()]


def measured_run(run: RunFolder, counted: Counted = "matmul") -> MeasuredLoss | None:
    """N, D and the last validation loss of a run; None where it has not reached its last step."""
    config = run.config
    processes = config.declared_world_size
    steps = config.steps(processes)
    loss = final_loss(run, steps)
    if loss is None:
        return None
    tokens = steps * config.batch(processes).global_batch_size * config.data.sequence_length
    flops = training_flops_per_token(config.model, config.data.sequence_length, config.predicted_share) * tokens
    return MeasuredLoss(count_parameters(config.model, counted), tokens, loss, run.path.name, flops)


def count_parameters(model: ModelConfig, counted: Counted) -> int:
    """N of a resolved model."""
    assert counted in get_args(Counted), counted
    if counted == "total":
        return parameter_count(model)
    return matmul_parameters(model) if counted == "matmul" else model.num_hidden_layers * block_matrices(model)


def final_loss(run: RunFolder, last_step: int) -> float | None:
    """Mean nats per held-out token at the last step, over all sources: Σ loss·tokens / Σ tokens; None without one."""
    lines, _ = read_lines(run.metrics)
    for line in reversed(lines):
        if line.get("step") == last_step:
            loss = _mean_loss(line)
            if loss is not None:
                return loss
    return None


def _mean_loss(line: Mapping[str, Any]) -> float | None:
    ends = "/tokens"
    sources = [key.removesuffix(ends) for key in line if key.startswith("validation/") and key.endswith(ends)]
    sums = [(line.get(f"{source}/loss"), line[f"{source}{ends}"]) for source in sources]
    known = [(loss, tokens) for loss, tokens in sums if isinstance(loss, float) and tokens]
    total = sum(tokens for _, tokens in known)
    return sum(loss * tokens for loss, tokens in known) / total if total else None


def _rows(path: Path) -> list[MeasuredLoss]:
    rows = list(_read_table(path))
    if not rows:
        raise DataError(f"{path}: a table without rows.")
    return [_measured_row(path, number, row) for number, row in enumerate(rows, 1)]


def _read_table(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix == ".csv":
        try:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                return list(csv.DictReader(handle))
        except (UnicodeDecodeError, csv.Error) as problem:
            raise DataError(f"{path}: not a readable table ({problem}).") from None
    if path.suffix == ".jsonl":
        lines, bad = read_lines(path)
        if bad:
            raise DataError(f"{path}: {bad} lines are not JSON objects.")
        return lines
    tree = read_json(path, "table")
    rows = tree.get("rungs") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a list of objects with parameters, tokens and loss is due, or a ladder.json.")
    return [row for row in rows if "status" not in row or row["status"] == "finished"]


def _measured_row(path: Path, number: int, row: Mapping[str, Any]) -> MeasuredLoss:
    plain = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    values = {}
    for what, names in _COLUMNS.items():
        given = next((plain[name] for name in names if plain.get(name) not in (None, "")), None)
        try:
            values[what] = float(given)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            known = ", ".join(plain) or "none"
            raise DataError(
                f"{path}, row {number}: {what} is missing or not a number; its columns are {known}."
            ) from None
        if not 0 < values[what] < math.inf:
            raise DataError(f"{path}, row {number}: {what} is {values[what]:g}; a number above 0 is due.")
    return MeasuredLoss(**values, name=str(plain.get("name") or f"row {number}"))
