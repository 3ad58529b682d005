"""The documents that a comparison drops: sorted Parquet files that a worker looks into without reading them whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.comparisons.frames import KeyRange, key_ranges, rows_of, within
from firstlight.corpus.step import Block, Result
from firstlight.engine import load_daft

FILE_ROWS = 1 << 24
GROUP_ROWS = 1 << 17


def write_dropped(frame: Any, rows: int, folder: Path) -> None:
    """Write the `rows` rows of `frame` (document, kept) as `dropped-00000.parquet` …, sorted by document.

    The same rows give the same bytes, wherever and in which order they were found.
    """
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("document", pyarrow.int64()), ("kept", pyarrow.int64())])
    waiting: list[Any] = []
    files = 0

    def flush(size: int) -> None:
        nonlocal waiting, files
        table = pyarrow.Table.from_batches(waiting, schema=schema).combine_chunks()
        path = folder / f"dropped-{files:05d}.parquet"
        pyarrow.parquet.write_table(table.slice(0, size), path, compression="zstd", row_group_size=GROUP_ROWS)
        waiting = table.slice(size).to_batches()
        files += 1

    for ids in _id_ranges(frame, rows):
        for batch in rows_of(within(frame, "document", ids).select("document", "kept").sort("document")):
            waiting.append(batch.cast(schema))
            while sum(map(len, waiting)) >= FILE_ROWS:
                flush(FILE_ROWS)
    if waiting:
        flush(FILE_ROWS)


def _id_ranges(frame: Any, rows: int) -> list[KeyRange]:
    """Ranges of ids that are sorted one after another."""
    column = load_daft().col("document")
    ends = frame.agg(column.min().alias("lowest"), column.max().alias("highest")).to_pydict()
    return key_ranges(rows, ends["lowest"][0] or 0, ends["highest"][0] or 0)


class DroppedDocuments:
    """Which documents a decision drops; holds one row group of each decision in memory."""

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet

        self._groups: list[tuple[int, int, Path, int]] = []
        for file in sorted(folder.glob("dropped-*.parquet")):
            metadata = pyarrow.parquet.read_metadata(file)
            for number in range(metadata.num_row_groups):
                statistics = metadata.row_group(number).column(0).statistics
                self._groups.append((statistics.min, statistics.max, file, number))
        self._read: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def mask(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `ids` are dropped."""
        found = np.zeros(len(ids), dtype=bool)
        if not len(ids):
            return found
        lowest, highest = int(ids.min()), int(ids.max())
        for index, (first, last, _, _) in enumerate(self._groups):
            if first <= highest and lowest <= last:
                found |= np.isin(ids, self._group(index))
        return found

    def _group(self, index: int) -> NDArray[np.int64]:
        import pyarrow.parquet

        if self._read[0] != index:
            _, _, file, number = self._groups[index]
            table = pyarrow.parquet.ParquetFile(file).read_row_group(number, columns=["document"])
            self._read = (index, table.column("document").to_numpy())
        return self._read[1]


class DroppingComparison:
    """What comparisons have in common whose decision is a list of documents to drop."""

    reason: str
    _dropped: DroppedDocuments | None = None

    def load(self, folder: Path) -> None:
        """Read what the decision's files hold, but for the ids themselves."""
        self._dropped = DroppedDocuments(Path(folder))

    def apply(self, block: Block, ids: NDArray[np.int64]) -> Result:
        """Drop the documents that the decision names."""
        assert self._dropped is not None, "load a decision first"
        reasons: Sequence[str | None] = [self.reason if drop else None for drop in self._dropped.mask(ids)]
        return Result(reasons)
