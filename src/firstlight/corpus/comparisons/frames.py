"""What comparisons share of tables on the engine: reading signals in passes, and keeping a query's result on disk.

A query holds the rows that it groups in memory. So that memory does not grow with the corpus, large tables are grouped
in passes over disjoint keys; the result does not depend on how many. On a cluster a pass is as large as its memory.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firstlight.engine import load_daft

ROWS_AT_ONCE = 1 << 22
"""Rows of a key and an id that are grouped at once on one machine: about 200 bytes each."""
_BYTES_PER_ROW = 1000
"""Memory of a cluster that a row gets: what grouping takes, and room for everything else."""


class KeyRange(NamedTuple):
    """Keys from `first` up to and without `end`; None: without limit."""

    first: int | None
    end: int | None


def rows_at_once() -> int:
    """Rows that a pass may group: on one machine a constant, on a Ray cluster by its memory."""
    if load_daft().get_or_create_runner().name != "ray":
        return ROWS_AT_ONCE
    import ray

    return max(ROWS_AT_ONCE, int(ray.cluster_resources().get("memory", 0)) // _BYTES_PER_ROW)


def key_ranges(rows: int, lowest: int = -(2**63), highest: int = 2**63 - 1) -> list[KeyRange]:
    """Rising ranges of evenly spread int64 keys, each with about `rows_at_once` of `rows` keys at most."""
    count = max(1, -(-rows // rows_at_once()))
    inner = [lowest + number * (highest + 1 - lowest) // count for number in range(1, count)]
    return [KeyRange(first, end) for first, end in itertools.pairwise([None, *inner, None])]


def within(frame: Any, column: str, keys: KeyRange) -> Any:
    """Rows whose key is in the range."""
    key = load_daft().col(column)
    if keys.first is not None:
        frame = frame.where(key >= keys.first)
    if keys.end is not None:
        frame = frame.where(key < keys.end)
    return frame


def read_tables(files: Sequence[str]) -> Any:
    """A frame over Parquet files; a cluster's machines do not know what a relative name is relative to."""
    return load_daft().read_parquet([str(Path(file).absolute()) for file in files])


def read_signals(files: Sequence[str], excluded: Sequence[str]) -> Any:
    """The signals of all units but of documents (column `id`) that earlier comparisons drop."""
    daft = load_daft()
    signals = read_tables(files)
    if not excluded:
        return signals
    gone = read_tables(excluded).select(daft.col("document").alias("id"))
    return signals.join(gone, on="id", how="anti")


def store(frame: Any, folder: Path) -> Any:
    """Run a query; its result is a frame over the Parquet files it leaves in `folder`."""
    return read_tables(frame.write_parquet(str(folder.absolute()), compression="zstd").to_pydict()["path"])


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder inside a decision's for what is in the making; it goes with the block."""
    place = Path(folder) / "scratch"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def rows_of(frame: Any) -> Iterator[Any]:
    """The result of a query as Arrow record batches, in order, none of them empty."""
    for batch in frame.to_arrow_iter():
        if batch.num_rows:
            yield batch
