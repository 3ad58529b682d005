"""Near-duplicates: MinHash signatures, candidates that agree in a band, components of candidates, one document of each.

The method of FineWeb (Penedo et al. 2024, section 3.4) and datatrove, with two differences: Han and kana characters
are words of their own, and candidates can be verified by the similarity that whole signatures estimate. In a band, all
documents with the same key are joined to the first of them, and, when verified, also to the last: edges grow with
the number of documents and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config.duplicates import NearDuplicates
from firstlight.corpus.comparisons.components import connected_components
from firstlight.corpus.comparisons.dropped import DroppingComparison, write_dropped
from firstlight.corpus.comparisons.frames import (
    ROWS_AT_ONCE,
    KeyRange,
    key_ranges,
    read_signals,
    read_tables,
    rows_at_once,
    scratch,
    store,
    within,
)
from firstlight.corpus.comparisons.minhash import band_keys, permutations, signatures
from firstlight.corpus.comparisons.units import character_table
from firstlight.corpus.step import Block
from firstlight.engine import load_daft
from firstlight.support.console import warn

LARGE_CLUSTER = 100
"""Clusters of more documents are mostly chains of boilerplate; a warning names `min_similarity`."""
BAND_ROWS = 1 << 20
"""On one machine, keys of several bands are grouped together up to so many: fewer queries, or less memory."""


class NearComparison(DroppingComparison):
    """Documents with nearly the same n-grams."""

    reason = "near-duplicate"

    def __init__(self, config: NearDuplicates) -> None:
        self.config = config
        self._permutations = permutations(config.bands * config.rows, config.seed)
        self._bands = [f"band_{number:03d}" for number in range(config.bands)]

    def signals(self, block: Block, ids: NDArray[np.int64]) -> Any:
        """A row for each document that has a word: id, length in bytes, a key for each band, 16 bits of each minimum.

        16 bits of a minimum tell different ones apart but for one in 65,536 (b-bit minwise hashing, Li and König 2010).
        """
        import pyarrow

        data, offsets = block.utf8()
        minima, counts = signatures(data, offsets, character_table(True), self.config.ngram, self._permutations)
        there = counts > 0
        minima = minima[there]
        columns = {"id": ids[there], "length": np.diff(offsets)[there]}
        columns |= dict(zip(self._bands, band_keys(minima, self.config.bands, self.config.rows), strict=True))
        if self.config.min_similarity is not None:
            short = np.ascontiguousarray(minima.astype("<u2"))
            width = pyarrow.binary(2 * minima.shape[1])
            columns["minima"] = pyarrow.FixedSizeBinaryArray.from_buffers(
                width, len(short), [None, pyarrow.py_buffer(short.tobytes())]
            )
        return pyarrow.table(columns)

    def decide(self, files: Sequence[str], folder: Path, excluded: Sequence[str]) -> dict[str, Any]:
        """Cluster the documents and keep one of each cluster, as `keep` says.

        Figures: dropped, clusters, largest_cluster, candidate_pairs (distinct pairs that were compared or joined),
        duplicate_pairs (those that were verified, or all), documents, rounds of the clustering, and shuffled_bytes:
        rows × bytes that are grouped or joined. None depends on the machine.
        """
        figures = dict.fromkeys(_FIGURES, 0)
        if not files:
            return figures
        documents = figures["documents"] = read_tables(files).count_rows()
        with scratch(folder) as place:
            candidates = []
            for number, (bands, keys) in enumerate(self._passes(documents)):
                part = read_signals(files, excluded).unpivot("id", bands, variable_name="band", value_name="key")
                part = within(part.select("id", "key"), "key", keys)
                candidates.append(store(self._edges(part), place / f"edges-{number}"))
            edges = candidates[0]
            for more in candidates[1:]:
                edges = edges.union_all(more)
            pairs = store(edges.distinct(), place / "pairs")
            figures["candidate_pairs"] = verified = pairs.count_rows()
            if self.config.min_similarity is not None and verified:
                pairs = store(self._verified(pairs, read_signals(files, ())), place / "verified")
                verified = pairs.count_rows()
            figures["duplicate_pairs"] = verified
            figures["shuffled_bytes"] = 16 * (documents * self.config.bands + figures["candidate_pairs"])
            if self.config.min_similarity is not None:
                figures["shuffled_bytes"] += figures["candidate_pairs"] * 4 * len(self._permutations[0])
            if verified:
                components = connected_components(pairs, place / "components")
                figures["rounds"] = components.rounds
                figures["shuffled_bytes"] += 16 * components.moved_rows
                self._keep(components.frame, read_signals(files, ()), place, folder, figures)
        if figures["largest_cluster"] > LARGE_CLUSTER and self.config.min_similarity is None:
            warn(
                f"near_duplicates: the largest cluster has {figures['largest_cluster']:,} documents, of which one "
                "stays; chains of boilerplate can join texts that differ, and min_similarity, as 0.7, tells them apart."
            )
        return figures

    def _passes(self, documents: int) -> Iterator[tuple[list[str], KeyRange]]:
        """Bands and ranges of keys that are grouped together."""
        limit = rows_at_once()
        together = max(1, (limit if limit > ROWS_AT_ONCE else BAND_ROWS) // max(1, documents))
        for first in range(0, len(self._bands), together):
            for keys in key_ranges(documents):
                yield self._bands[first : first + together], keys

    def _edges(self, part: Any) -> Any:
        """(larger, smaller) for documents with the same key."""
        col = load_daft().col
        groups = (
            part.groupby("key")
            .agg(col("id").min().alias("first"), col("id").max().alias("last"))
            .where(col("first") != col("last"))
        )
        members = part.join(groups, on="key")
        edges = members.where(col("id") != col("first")).select(
            col("id").alias("larger"), col("first").alias("smaller")
        )
        if self.config.min_similarity is not None:
            inner = members.where((col("id") != col("first")) & (col("id") != col("last")))
            edges = edges.union_all(inner.select(col("last").alias("larger"), col("id").alias("smaller")))
        return edges.distinct()

    def _verified(self, pairs: Any, signals: Any) -> Any:
        """The pairs whose estimated similarity is `min_similarity` at least."""
        daft = load_daft()
        col = daft.col
        hashes, least = self.config.bands * self.config.rows, self.config.min_similarity

        @daft.func.batch(return_dtype=daft.DataType.bool())
        def similar(first: Any, second: Any) -> Any:
            equal = _minima(first, hashes) == _minima(second, hashes)
            return daft.Series.from_numpy(equal.mean(axis=1) >= least)

        for side in ("larger", "smaller"):
            pairs = pairs.join(signals.select(col("id").alias(side), col("minima").alias(f"of_{side}")), on=side)
        return pairs.where(similar(col("of_larger"), col("of_smaller"))).select("larger", "smaller")

    def _keep(self, stars: Any, signals: Any, place: Path, folder: Path, figures: dict[str, int]) -> None:
        """Choose the document of each cluster that stays, and write the others."""
        col = load_daft().col
        roots = stars.groupby("root").agg(col("node").count().alias("size"))
        clusters = roots.agg(col("root").count().alias("clusters"), col("size").max().alias("largest")).to_pydict()
        figures["clusters"], figures["largest_cluster"] = clusters["clusters"][0], clusters["largest"][0] + 1
        if self.config.keep == "first":
            dropped = stars.select(col("node").alias("document"), col("root").alias("kept"))
        else:
            members = stars.union_all(roots.select(col("root").alias("node"), "root"))
            members = store(
                members.join(signals.select(col("id").alias("node"), "length"), on="node"), place / "members"
            )
            longest = members.groupby("root").agg(col("length").max().alias("longest"))
            kept = (
                members.join(longest, on="root")
                .where(col("length") == col("longest"))
                .groupby("root")
                .agg(col("node").min().alias("kept"))
            )
            joined = members.join(kept, on="root").where(col("node") != col("kept"))
            dropped = store(joined.select(col("node").alias("document"), "kept"), place / "dropped")
        figures["dropped"] = dropped.count_rows()
        write_dropped(dropped, figures["dropped"], folder)


_FIGURES = (
    "dropped",
    "clusters",
    "largest_cluster",
    "candidate_pairs",
    "duplicate_pairs",
    "documents",
    "rounds",
    "shuffled_bytes",
)


def _minima(series: Any, hashes: int) -> NDArray[np.uint16]:
    """[pairs, hashes] of a Daft series of fixed-size binaries."""
    array = series.to_arrow()
    numbers = np.frombuffer(array.buffers()[1], dtype="<u2")
    return numbers[array.offset * hashes : (array.offset + len(array)) * hashes].reshape(-1, hashes)
