"""Peak memory that others measured, against `firstlight.planning.framework_memory`, row by row.

The last column says how far the prediction is off when the constants are chosen on the rows of all other kinds: for
each kind (a model and a way of recomputing, in one framework) they are those of a grid whose mean error elsewhere is
least.
With --write the table takes its place in docs/memory.md and its translation.

    python benchmarks/memory_published.py --write
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from common import write_table
from planner_cases.memory import UNITS, framework_peak, system_of

CASES = Path(__file__).with_name("planner_cases") / "published.json"
GRID: dict[str, tuple[float, ...]] = {
    "fragmentation": (0.0, 0.025, 0.05, 0.075, 0.1),
    "working_layers": (1, 2, 3),
    "step_bytes": (0, 2, 4),
    "logit_bytes": (10, 14, 18),
}
"""Values that the constants may have; a constant that a system does without (0) stays so."""
HEADS = {
    "en": "| run | measured | predicted | error | chosen without its kind |",
    "zh": "| 训练 | 实测 | 预测 | 误差 | 常数选取时排除同类 |",
}
PAGES = {"en": "memory.md", "zh": "memory.zh.md"}


@dataclass(frozen=True, slots=True)
class Row:
    """One measured peak."""

    case: Mapping[str, Any]
    name: str
    kind: str
    measured: float
    """Bytes."""
    unit: str

    def error(self, constants: Mapping[str, float] | None = None) -> float:
        """Relative error, with its sign; constants: instead of the system's own."""
        return self.predict(constants) / self.measured - 1

    def predict(self, constants: Mapping[str, float] | None = None) -> float:
        """Bytes."""
        system = system_of(self.case)
        own = {name: value for name, value in (constants or {}).items() if getattr(system, name)}
        if system.logit_bytes < min(GRID["logit_bytes"]):
            own.pop("logit_bytes", None)  # a loss that is compiled
        return framework_peak(self.case, replace(system, **own)).total


def main() -> None:
    """Print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES, help="published cases")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    arguments = parser.parse_args()
    rows = measured_rows(json.loads(arguments.cases.read_text(encoding="utf-8"))["cases"])
    without = left_out(rows)
    lines = [
        f"| {row.name} | {_size(row, row.measured)} | {_size(row, row.predict())} | {row.error():+.1%} | {other:+.1%} |"
        for row, other in zip(rows, without, strict=True)
    ]
    own, others = (median(map(abs, errors)) for errors in ([row.error() for row in rows], without))
    lines.append(f"| median, without sign | | | {own:.1%} | {others:.1%} |")
    for language, head in HEADS.items():
        table = "\n".join((head, "|---|---:|---:|---:|---:|", *lines, "", "`benchmarks/memory_published.py`."))
        if language == "zh":
            table = table.replace("median, without sign", "中位数（绝对值）")
        else:
            print(table)
        if arguments.write:
            write_table(PAGES[language], "memory-published", table)


def measured_rows(cases: list[dict[str, Any]]) -> list[Row]:
    """The peaks among published cases."""
    rows = []
    for case in cases:
        if case["category"] != "memory+throughput-measured":
            continue
        inputs = case["inputs"]
        for key, value in case["published"].items():
            if not key.startswith("mem_"):
                continue
            unit = key.removeprefix("mem_")
            if "model" in inputs:
                technique = inputs.get("technique", "selective AC+compile")
                parallel = inputs.get("parallel") or {"fsdp": inputs["gpus"]}
                sizes = " × ".join(f"{name.upper()} {size}" for name, size in parallel.items() if size > 1)
                name = f"torchtitan, {inputs['model']}, {inputs['precision']}, {technique}, {sizes}"
                kind = f"{inputs['model']} {technique.split('+')[0]} {'2025' if '_2025' in case['source'] else '2024'}"
            else:
                sizes = f"TP {inputs['tp']} × PP {inputs['pp']} × DP {inputs['dp']}"
                name = (
                    f"BigScience, {inputs['layers']} × {inputs['hidden']}, micro-batch {inputs['micro_batch']}, {sizes}"
                )
                kind = f"BigScience {inputs['layers']} × {inputs['hidden']}"
            rows.append(Row(case, name, kind, value * UNITS[unit], unit))
    return rows


def left_out(rows: list[Row]) -> list[float]:
    """The error of each row with the constants that suit the rows of other kinds best."""
    choices = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    errors = [[row.error(choice) for choice in choices] for row in rows]
    found = []
    for row, own in zip(rows, errors, strict=True):
        others = [each for other, each in zip(rows, errors, strict=True) if other.kind != row.kind]
        best = min(range(len(choices)), key=lambda number: mean(abs(each[number]) for each in others))
        found.append(own[best])
    return found


def _size(row: Row, size: float) -> str:
    return f"{size / UNITS[row.unit]:.1f} {row.unit}"


if __name__ == "__main__":
    main()
