"""What a build did and what is left, as tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from firstlight.support.console import human_bytes, human_count, printable

REASONS_SHOWN = 6


def corpus_table(report: dict[str, Any]) -> Group:
    """The funnel, a row for each step and its reasons; then the sources."""
    return Group(funnel_table(report), "", source_table(report))


def funnel_table(report: dict[str, Any]) -> Table:
    """What every step of a `build_corpus` report took, dropped and changed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", overflow="fold", max_width=34)
    for name in ("documents", "dropped", "text", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    sources = report["sources"].values()
    documents = sum(source["documents_in"] for source in sources)
    size = sum(source["bytes_in"] for source in sources)
    table.add_row("read", human_count(documents), "", human_bytes(size), "100%")
    for step in report["steps"]:
        dropped = step["documents_in"] - step["documents_out"]
        table.add_row(
            step["step"],
            human_count(step["documents_out"]),
            f"-{human_count(dropped)}" if dropped else "",
            human_bytes(step["bytes_out"]),
            f"{step['bytes_out'] / size:.1%}" if size else "",
        )
        if step["looked_at"] < step["documents_in"]:
            table.add_row("  [dim]looked at[/dim]", f"[dim]{human_count(step['looked_at'])}[/dim]", "", "", "")
        for row in _ranked(step["dropped"], "other reasons"):
            table.add_row(f"  [dim]{row[0]}[/dim]", "", f"[dim]-{row[1]}[/dim]", "", "")
        if step["changed"]:
            table.add_row("  [dim]changed[/dim]", f"[dim]{human_count(step['changed'])}[/dim]", "", "", "")
        for row in _ranked(step["counts"], "other counts"):
            table.add_row(f"  [dim]{row[0]}[/dim]", f"[dim]{row[1]}[/dim]", "", "", "")
    return table


def _ranked(counts: dict[str, int], others: str) -> Iterator[tuple[str, str]]:
    """The largest counts, ready to be shown, and how many `others` there are and what they sum to."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = len(ranked) if len(ranked) <= REASONS_SHOWN + 1 else REASONS_SHOWN
    for name, count in ranked[:shown]:
        yield escape(printable(name)), human_count(count)
    if left := ranked[shown:]:
        yield f"{len(left)} {others}", human_count(sum(count for _, count in left))


def source_table(report: dict[str, Any]) -> Table:
    """One row for each source, and one for everything that was not as it should be."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("source", overflow="fold", max_width=16)
    for name in ("read", "kept", "text", "median", "longest"):
        table.add_column(name, justify="right", no_wrap=True)
    for source, counts in report["sources"].items():
        lengths = counts["characters_per_document"]
        table.add_row(
            escape(source),
            human_count(counts["documents_in"]),
            human_count(counts["documents_out"]),
            human_bytes(counts["bytes_out"]),
            human_count(lengths["median"]),
            human_count(lengths["max"]),
        )
        for reason in ("bad_lines", "repaired", "with_nul"):
            if counts[reason]:
                table.add_row(f"  [dim]{reason}[/dim]", f"[dim]{human_count(counts[reason])}[/dim]", "", "", "", "")
        for reason, count in counts["skipped"].items():
            table.add_row(f"  [dim]{escape(printable(reason))}[/dim]", f"[dim]{human_count(count)}[/dim]", *[""] * 4)
    return table
