"""Exact duplicates: of documents with equal 128-bit hashes of their texts the first in the corpus stays.

BLAKE2b (RFC 7693): among 10^12 documents the chance of any false duplicate is below 10^-14.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config.duplicates import ExactDuplicates
from firstlight.corpus.comparisons.dropped import DroppingComparison, write_dropped
from firstlight.corpus.comparisons.frames import key_ranges, read_signals, read_tables, scratch, store, within
from firstlight.corpus.step import Block
from firstlight.engine import load_daft

_NO_WORD = re.compile(r"[\W_]+")


def normalized(text: str, how: str) -> str:
    """What `ExactDuplicates.normalize` makes of a text. Marks of accents are part of a word, other signs are not."""
    if how == "whitespace":
        return " ".join(text.split())
    if how == "text":
        return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()
    return text


class ExactComparison(DroppingComparison):
    """Documents with the same text."""

    reason = "exact duplicate"

    def __init__(self, config: ExactDuplicates) -> None:
        self.config = config

    def signals(self, block: Block, ids: NDArray[np.int64]) -> Any:
        """A row for each document: id, and its hash as two int64."""
        import pyarrow

        hashes = b"".join(
            hashlib.blake2b(normalized(text, self.config.normalize).encode("utf-8"), digest_size=16).digest()
            for text in block.texts
        )
        halves = np.frombuffer(hashes, dtype="<i8").reshape(-1, 2)
        return pyarrow.table({"id": ids, "high": halves[:, 0], "low": halves[:, 1]})

    def decide(self, files: Sequence[str], folder: Path, excluded: Sequence[str]) -> dict[str, Any]:
        """Drop every document whose hash an earlier one has. Figures: documents, dropped, bytes of keys and ids."""
        if not files:
            return {"dropped": 0, "documents": 0, "shuffled_bytes": 0}
        col = load_daft().col
        documents = read_tables(files).count_rows()
        found = []
        with scratch(folder) as place:
            for number, keys in enumerate(key_ranges(documents)):
                part = within(read_signals(files, excluded), "high", keys)
                first = (
                    part.groupby("high", "low")
                    .agg(col("id").min().alias("kept"), col("id").count().alias("count"))
                    .where(col("count") > 1)
                )
                again = part.join(first, on=["high", "low"]).where(col("id") != col("kept"))
                found.append(store(again.select(col("id").alias("document"), "kept"), place / f"dropped-{number}"))
            dropped = found[0]
            for more in found[1:]:
                dropped = dropped.union_all(more)
            count = dropped.count_rows()
            write_dropped(dropped, count, folder)
        return {"dropped": count, "documents": documents, "shuffled_bytes": 24 * documents}
