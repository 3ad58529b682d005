"""Tables for the terminal; they fit 60 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from firstlight.support.console import human_count


def score_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Loss, perplexity and bits per byte by domain."""
    table = Table(box=SIMPLE_HEAD, title="held-out text", title_justify="left", title_style="bold")
    table.add_column("domain")
    for column in ("loss", "perplexity", "bits/byte", "tokens"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score['loss']:.3f}",
            f"{score['perplexity']:.1f}",
            f"{score['bits_per_byte']:.3f}",
            human_count(score["tokens"]),
        )
    return table
