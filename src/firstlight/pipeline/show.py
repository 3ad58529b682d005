"""Tables for the terminal; they fit 60 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from firstlight.support.console import human_count, printable


def score_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Loss, perplexity and bits per byte by domain."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", overflow="fold", max_width=20, no_wrap=False)
    for column in ("loss", "perplexity", "bits/byte", "tokens"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        perplexity = score["perplexity"]
        table.add_row(
            escape(printable(name)),
            f"{score['loss']:.3f}",
            f"{perplexity:.1f}" if perplexity < 1e6 else f"{perplexity:.1e}",
            f"{score['bits_per_byte']:.3f}",
            human_count(score["tokens"]),
        )
    return table
