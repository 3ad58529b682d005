"""Connected components on the engine: alternating large-star and small-star (Kiveris et al. 2014, "Connected Components
in MapReduce and Beyond").

A large-star joins every larger neighbour of a node to its smallest neighbour, a small-star the smaller ones; both keep
components as they are. In the end each component is a star around its smallest node. A chain of n nodes halves with
every round, the number of edges never grows, and no machine needs to hold a component.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from firstlight.corpus.comparisons.frames import store
from firstlight.engine import load_daft

MAX_ROUNDS = 64
"""More than any graph of 2^63 nodes was seen to take; reaching it is a fault of this module."""


class Components(NamedTuple):
    """Every node but the smallest of its component."""

    frame: Any
    """A Daft frame with columns `node` and `root`, the smallest node of the component, both int64."""
    rounds: int
    moved_rows: int
    """Edges that were moved between partitions, all rounds together; a row has 16 bytes."""


def connected_components(edges: Any, place: Path) -> Components:
    """Components of the graph whose `edges` (Daft frame: larger, smaller; int64) join two different nodes.

    Each round's edges are kept below `place`; `frame` reads those of the last.
    """
    moved = 0
    for number in range(1, MAX_ROUNDS + 1):
        large = store(_large_star(edges), place / f"large-{number}")
        after = store(_small_star(large), place / f"small-{number}")
        shutil.rmtree(place / f"small-{number - 1}", ignore_errors=True)
        shutil.rmtree(place / f"large-{number}", ignore_errors=True)
        count = after.count_rows()
        moved += 6 * count
        edges = after
        if _is_stars(after, count):
            col = load_daft().col
            return Components(after.select(col("larger").alias("node"), col("smaller").alias("root")), number, moved)
    raise AssertionError(f"no components after {MAX_ROUNDS} rounds")


def _large_star(edges: Any) -> Any:
    daft = load_daft()
    col, when = daft.col, daft.functions.when
    both = edges.select(col("larger").alias("node"), col("smaller").alias("neighbour")).union_all(
        edges.select(col("smaller").alias("node"), col("larger").alias("neighbour"))
    )
    lowest = both.groupby("node").agg(col("neighbour").min().alias("lowest"))
    own = when(col("lowest") < col("node"), col("lowest")).otherwise(col("node"))
    joined = both.where(col("neighbour") > col("node")).join(lowest.with_column("lowest", own), on="node")
    return joined.select(col("neighbour").alias("larger"), col("lowest").alias("smaller")).distinct()


def _small_star(edges: Any) -> Any:
    daft = load_daft()
    col = daft.col
    lowest = edges.groupby("larger").agg(col("smaller").min().alias("lowest"))
    joined = edges.join(lowest, on="larger").where(col("smaller") != col("lowest"))
    moved = joined.select(col("smaller").alias("larger"), col("lowest").alias("smaller"))
    own = lowest.select("larger", col("lowest").alias("smaller"))
    return moved.union_all(own).distinct()


def _is_stars(edges: Any, count: int) -> bool:
    """Whether every node is joined to one smaller node at most, and that one to none."""
    nodes = edges.select("larger").distinct()
    if nodes.count_rows() != count:
        return False
    daft = load_daft()
    middle = edges.select(daft.col("smaller").alias("larger")).distinct().join(nodes, on="larger", how="semi")
    return bool(middle.count_rows() == 0)
