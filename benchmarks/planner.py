"""The planner beside what papers, frameworks and runs have published.

Every case of a file (by default the packaged benchmarks/planner_cases/published.json: inputs, published figures, and
figures derived from them) goes to the adapter of its category. A figure is right within the case's tolerance or half a
unit of its last printed digit; a prediction (its name ends with "(predicted)") is judged by the median of its
category; everything else that was measured is shown only. What has no answer is listed with the reason.

    python benchmarks/planner.py [--cases FILE] [--markdown] [--write]

Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import machine, write_table
from firstlight.support.errors import FirstlightError
from planner_cases import flops_cases, hyperparameters, laws, memory, throughput
from planner_cases.answer import Answer, Case, Comparison, UnansweredError

PACKAGED = Path(__file__).parent / "planner_cases" / "published.json"
ANSWERS: dict[str, Answer] = {
    name: answer
    for module in (laws, hyperparameters, flops_cases, throughput, memory)
    for name, answer in module.ANSWERS.items()
}
PREDICTED = "(predicted)"
PREDICTED_MEDIAN = {
    "throughput-measured": 0.15,
    "run-hours": 0.15,
    "memory-derived": 0.10,
    "memory-measured": 0.10,
    "memory+throughput-measured": 0.10,
}
"""Largest median error of the predictions of a category; those of others are shown only."""


@dataclass
class Category:
    """What became of the cases of one category."""

    name: str
    cases: int = 0
    answered: int = 0
    comparisons: list[tuple[str, Comparison]] = field(default_factory=list)
    """With the case's id."""
    unanswered: list[tuple[str, str]] = field(default_factory=list)
    """(id, reason)."""
    left_out: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Figures of answered cases that nothing was compared with, and in how many cases."""

    @property
    def exact(self) -> list[tuple[str, Comparison]]:
        """Figures that must be right within a tolerance."""
        return [pair for pair in self.comparisons if pair[1].tolerance is not None and not _predicted(pair[1])]

    @property
    def predicted(self) -> list[Comparison]:
        """Predictions."""
        return [comparison for _, comparison in self.comparisons if _predicted(comparison)]

    @property
    def shown(self) -> list[Comparison]:
        """Measured figures beside a law that claims nothing about them."""
        return [c for _, c in self.comparisons if c.tolerance is None and not _predicted(c)]

    @property
    def wrong(self) -> list[tuple[str, Comparison]]:
        """Exact figures outside their tolerance."""
        return [pair for pair in self.exact if pair[1].error > (pair[1].tolerance or 0)]

    @property
    def median_predicted(self) -> float | None:
        """Median error of the predictions."""
        return median(c.error for c in self.predicted) if self.predicted else None

    @property
    def target(self) -> str:
        """In words; tolerance: the case's, or half a unit of the last printed digit."""
        words = ["tolerance"] if self.exact else []
        limit = PREDICTED_MEDIAN.get(self.name)
        if limit is not None and self.predicted:
            words.append(f"median ≤ {100 * limit:.0f} %")
        return ", ".join(words) or "none"

    @property
    def met(self) -> bool:
        """Whether nothing is missed; a category without comparisons misses nothing."""
        limit, found = PREDICTED_MEDIAN.get(self.name), self.median_predicted
        return not self.wrong and (limit is None or found is None or found <= limit)

    @property
    def verdict(self) -> str:
        """met, missed, or none where there is no target or no comparison."""
        return ("met" if self.met else "missed") if self.target != "none" else "–"


def main() -> int:
    """Print the table, what was wrong and what has no answer; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=PACKAGED, help="file of cases (JSON)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--write", action="store_true", help="put the table into docs/planner.md and its translation")
    options = parser.parse_args()
    categories = list(judge(read_cases(options.cases)))
    if options.write:
        words = f"{machine()}, {datetime.date.today().isoformat()}"
        for page, note in (("planner.md", "Written on"), ("planner.zh.md", "生成于")):
            write_table(page, "planner-cases", f"{markdown(categories)}\n\n{note} {words}.")
    print(markdown(categories) if options.markdown else text(categories))
    print(*details(categories), sep="\n")
    return 0 if all(category.met for category in categories) else 1


def read_cases(path: Path) -> list[Case]:
    """The cases of a file: a list, or an object with the list under `cases`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{path} cannot be read as cases: {error}")
    return content["cases"] if isinstance(content, dict) else content


def judge(cases: Iterable[Case]) -> Iterator[Category]:
    """The categories in the order of the cases, each with what its adapter said."""
    categories: dict[str, Category] = {}
    for case in cases:
        category = categories.setdefault(case["category"], Category(case["category"]))
        category.cases += 1
        try:
            found = answer(case)
        except UnansweredError as reason:
            category.unanswered.append((case["id"], str(reason)))
            continue
        category.answered += 1
        category.comparisons += [(case["id"], comparison) for comparison in found]
        for name in left_out(case, found):
            category.left_out[name] += 1
    yield from categories.values()


def answer(case: Case) -> list[Comparison]:
    """The comparisons of a case. One that an adapter cannot read is a case without an answer; the others go on."""
    adapter = ANSWERS.get(case["category"])
    if adapter is None:
        raise UnansweredError("no adapter knows this category")
    try:
        found = adapter(case)
    except KeyError as missing:
        raise UnansweredError(f"the case has no {missing.args[0]!r}, which its formula needs") from missing
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, FirstlightError) as problem:
        raise UnansweredError(f"its adapter failed: {type(problem).__name__}: {problem}") from problem
    if not found:
        raise UnansweredError("nothing of it could be compared")
    return found


def left_out(case: Case, found: Iterable[Comparison]) -> Iterator[str]:
    """Names of a case's figures that no comparison is about."""
    compared = {comparison.what for comparison in found}
    for where in ("published", "derived"):
        for key, value in case.get(where, {}).items():
            name = f"{where}.{key}"
            if _is_figure(value) and not any(
                what == name or what.startswith((name + " ", name + ".")) for what in compared
            ):
                yield name


def text(categories: list[Category]) -> str:
    """The table for a terminal."""
    rows = [HEAD, *(row(category) for category in categories)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in rows
    )


def markdown(categories: list[Category]) -> str:
    """The table for a page."""
    lines = [HEAD, tuple("---" if column in TEXT_COLUMNS else "---:" for column in range(len(HEAD)))]
    lines += [row(category) for category in categories]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HEAD = ("category", "cases", "answered", "figures", "right", "median", "worst", "target", "verdict")
TEXT_COLUMNS = (0, 7, 8)


def row(category: Category) -> tuple[str, ...]:
    """Median and worst error are those of predictions where there are any, else of measured figures, else of exact."""
    exact = [comparison for _, comparison in category.exact]
    errors = [comparison.error for comparison in category.predicted or category.shown or exact]
    right = f"{len(exact) - len(category.wrong)}/{len(exact)}" if exact else "–"
    return (
        category.name,
        str(category.cases),
        str(category.answered),
        str(len(category.comparisons)),
        right,
        percent(median(errors)) if errors else "–",
        percent(max(errors)) if errors else "–",
        category.target,
        category.verdict,
    )


def details(categories: list[Category]) -> Iterator[str]:
    """What was wrong, what has no answer and why, and which figures were left out."""
    for category in categories:
        for name, comparison in category.wrong:
            yield (
                f"wrong: {name}, {comparison.what}: {comparison.expected:.6g} expected, {comparison.found:.6g} found "
                f"({percent(comparison.error)}, right within {percent(comparison.tolerance or 0)})"
            )
    for category in categories:
        for name, reason in category.unanswered:
            yield f"no answer: {category.name}, {name}: {reason}"
    for category in categories:
        if category.left_out:
            names = ", ".join(f"{name} ({count})" for name, count in category.left_out.items())
            yield f"not compared, of answered cases: {category.name}: {names}"


def percent(share: float) -> str:
    """Three digits, and no digits where there is nothing to see."""
    if share < 5e-7:
        return "0 %"
    return f"{100 * share:.3g} %"


def _predicted(comparison: Comparison) -> bool:
    return comparison.what.endswith(PREDICTED)


def _is_figure(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_figure(part) for part in value.values())
    if isinstance(value, list):
        return any(_is_figure(part) for part in value)
    return isinstance(value, int | float)


if __name__ == "__main__":
    sys.exit(main())
