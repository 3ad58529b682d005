"""Lines or paragraphs that stand in many documents: found by hash on the engine, removed by the workers.

Lines are equal when their words are, numbers and punctuation aside, as in CCNet (Wenzek et al. 2020). Llama 3
(Grattafiori et al. 2024, section 3.1.1) removes lines that stand in more than 6 of 30 M documents. FineWeb (section
3.5) found that removing every line that occurs twice makes a corpus worse: this is for boilerplate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config.duplicates import RepeatedLines
from firstlight.corpus.comparisons.frames import key_ranges, read_signals, read_tables, rows_of, within
from firstlight.corpus.comparisons.units import character_table, hash_units, mix
from firstlight.corpus.compiled import compiled
from firstlight.corpus.step import Block, Result
from firstlight.engine import load_daft

NOTHING_LEFT = "nothing but repeated lines"
_BASE = np.uint64(0xA24BAED4963EE407)
_NEWLINE = np.uint8(10)


class RepeatedLinesComparison:
    """Lines, or paragraphs, of many documents."""

    def __init__(self, config: RepeatedLines) -> None:
        self.config = config
        self._repeated: NDArray[np.int64] | None = None
        self._first: NDArray[np.int64] | None = None

    def signals(self, block: Block, ids: NDArray[np.int64]) -> Any:
        """A row for each different line of each document: id, and the line's hash as int64."""
        import pyarrow

        _, _, places, hashes = self._lines(block)
        order = np.lexsort((hashes, places))
        places, hashes = places[order], hashes[order]
        new = np.ones(len(hashes), dtype=bool)
        new[1:] = (places[1:] != places[:-1]) | (hashes[1:] != hashes[:-1])
        return pyarrow.table({"id": ids[places[new]], "line": hashes[new]})

    def decide(self, files: Sequence[str], folder: Path, excluded: Sequence[str]) -> dict[str, Any]:
        """Write the hashes of repeated lines, sorted, and the first document of each.

        Figures: repeated_lines (different ones), in_documents (all their documents together), lines (different ones
        of each document), shuffled_bytes.
        """
        col = load_daft().col
        lines = read_tables(files).count_rows() if files else 0
        batches: list[Any] = []
        for keys in key_ranges(lines) if lines else []:
            counted = (
                within(read_signals(files, excluded), "line", keys)
                .groupby("line")
                .agg(col("id").min().alias("first"), col("id").count().alias("documents"))
                .where(col("documents") >= self.config.min_documents)
            )
            batches += rows_of(counted.sort("line"))

        def column(name: str) -> NDArray[np.int64]:
            parts = [batch.column(batch.schema.get_field_index(name)).to_numpy() for batch in batches]
            return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)

        repeated = column("line")
        np.save(Path(folder) / "lines.npy", repeated)
        np.save(Path(folder) / "first.npy", column("first"))
        return {
            "repeated_lines": len(repeated),
            "in_documents": int(column("documents").sum()),
            "lines": lines,
            "shuffled_bytes": 16 * lines,
        }

    def load(self, folder: Path) -> None:
        """Map the hashes into memory; workers of a machine share them."""
        self._repeated = np.load(Path(folder) / "lines.npy", mmap_mode="r")
        self._first = np.load(Path(folder) / "first.npy", mmap_mode="r")

    def apply(self, block: Block, ids: NDArray[np.int64]) -> Result:
        """Remove repeated lines with their line ends; drop documents of which no word is left."""
        assert self._repeated is not None and self._first is not None, "load a decision first"
        reasons: list[str | None] = [None] * len(block)
        starts, ends, places, hashes = self._lines(block)
        found = np.searchsorted(self._repeated, hashes)
        remove = found < len(self._repeated)
        remove[remove] = self._repeated[found[remove]] == hashes[remove]
        if self.config.keep_first:
            own = np.flatnonzero(remove)
            own = own[self._first[found[own]] == ids[places[own]]]
            keys = np.stack([places[own], hashes[own]], axis=1)
            _, once = np.unique(keys, axis=0, return_index=True)
            remove[own[once]] = False
        removed = np.flatnonzero(remove)
        if not len(removed):
            return Result(reasons)
        data, offsets = block.utf8()
        texts = list(block.texts)
        borders = np.searchsorted(places[removed], np.arange(len(block) + 1))
        for place in np.unique(places[removed]):
            document = removed[borders[place] : borders[place + 1]]
            texts[place] = _without(data[offsets[place] : offsets[place + 1]], starts[document], ends[document])
            if not texts[place].strip():
                reasons[place] = NOTHING_LEFT
        counts = {f"{self.config.unit}s removed": len(removed), "bytes removed": int((ends - starts)[removed].sum())}
        return Result(reasons, texts, counts=counts)

    def _lines(self, block: Block) -> tuple[NDArray[np.int64], ...]:
        """Start and end in the document, document, and hash of every line that is long enough, in order."""
        data, offsets = block.utf8()
        return _hash_lines(
            data, offsets, character_table(True), self.config.unit == "paragraph", self.config.min_characters
        )


def _without(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> str:
    """A text without some stretches of its bytes."""
    kept = np.ones(len(data) + 1, dtype=np.int8)
    marks = np.zeros(len(data) + 1, dtype=np.int8)
    marks[starts] += 1
    marks[ends] -= 1
    kept -= np.cumsum(marks, dtype=np.int8)
    return data[kept[:-1].astype(bool)].tobytes().decode("utf-8")


@compiled
def _line_end(data: Any, start: int, end: int, paragraphs: bool) -> int:
    """Where the line or paragraph that starts at `start` ends, its line ends included."""
    place = start
    while place < end:
        if data[place] != _NEWLINE:
            place += 1
            continue
        place += 1
        if not paragraphs:
            return place
        after = place
        while after < end and (data[after] == 32 or data[after] == 9 or data[after] == 13):
            after += 1
        if after < end and data[after] == _NEWLINE:
            while after < end and data[after] == _NEWLINE:
                place = after + 1
                after = place
                while after < end and (data[after] == 32 or data[after] == 9 or data[after] == 13):
                    after += 1
            return place
    return end


@compiled
def _characters(data: Any, start: int, end: int) -> int:
    """Characters of valid UTF-8, white space of ASCII at both ends left out."""
    while start < end and data[start] <= 32:
        start += 1
    while start < end and data[end - 1] <= 32:
        end -= 1
    count = 0
    for place in range(start, end):
        count += (data[place] & 0xC0) != 0x80
    return count


@compiled
def _hash_lines(data: Any, offsets: Any, table: Any, paragraphs: bool, min_characters: int) -> Any:
    """(start, end, text, hash), all [lines] int64, of every line that has words and is long enough."""
    texts = len(offsets) - 1
    total = texts
    longest = 0
    for text in range(texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    for place in range(len(data)):
        total += data[place] == _NEWLINE
    starts, ends = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    places, hashes = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    units = np.empty(longest, dtype=np.uint64)
    count = 0
    for text in range(texts):
        start, end = offsets[text], offsets[text + 1]
        while start < end:
            after = _line_end(data, start, end, paragraphs)
            if _characters(data, start, after) >= min_characters:
                found = hash_units(data, start, after, table, units)
                if found:
                    value = np.uint64(found)
                    for number in range(found):
                        value = mix(value * _BASE + units[number])
                    starts[count], ends[count] = start - offsets[text], after - offsets[text]
                    places[count], hashes[count] = text, np.int64(value)
                    count += 1
            start = after
    return starts[:count], ends[:count], places[:count], hashes[:count]
