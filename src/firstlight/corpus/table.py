"""What a corpus holds, as a table that fits a terminal of 60 columns."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from firstlight.support.console import human_bytes, human_count


def corpus_table(report: dict[str, Any]) -> Table:
    """One row for each source of a `build_corpus` report, and one for everything that was not as it should be."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
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
        for reason, count in counts["dropped"].items():
            table.add_row(f"  [dim]{reason}[/dim]", "", f"[dim]-{human_count(count)}[/dim]", "", "", "")
        for reason in ("bad_lines", "repaired", "with_nul"):
            if counts[reason]:
                table.add_row(f"  [dim]{reason}[/dim]", f"[dim]{human_count(counts[reason])}[/dim]", "", "", "", "")
    return table
