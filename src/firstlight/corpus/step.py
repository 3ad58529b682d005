"""What a step over documents is given, and what it answers.

A step sees a `Block`: some thousand documents of one source, in order. It may change texts, add metadata, and give a
reason to drop a document; it never reorders, and its answer for a document depends on that document alone. Arrays that
several steps need (the UTF-8 bytes, counts of words) are kept in the block until the texts change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Utf8(NamedTuple):
    """Texts in UTF-8, one after another."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    """[documents + 1]"""

    def select(self, places: NDArray[np.int64]) -> Utf8:
        """Those of the documents at `places`."""
        starts, ends = self.offsets[places], self.offsets[places + 1]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        pieces = [self.data[start:end] for start, end in zip(starts, ends, strict=True)]
        return Utf8(np.concatenate(pieces) if pieces else self.data[:0], offsets)


@dataclass
class Block:
    """Documents of one source: parallel lists of texts and metadata (never changed in place)."""

    texts: list[str]
    metadata: list[dict[str, Any]]
    source: str = ""
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def with_metadata(self, metadata: list[dict[str, Any]]) -> Block:
        """The same texts, and what is remembered of them, with other metadata."""
        return Block(self.texts, metadata, self.source, self._cache)

    def select(self, places: NDArray[np.int64]) -> Block:
        """The documents at `places` (rising), with what is remembered of them where it can be selected too."""
        chosen = Block([self.texts[n] for n in places], [self.metadata[n] for n in places], self.source)
        for name, value in self._cache.items():
            if hasattr(value, "select"):
                chosen._cache[name] = value.select(places)
        return chosen

    def utf8(self) -> Utf8:
        """The texts in UTF-8, one after another: (data, offsets); document i is data[offsets[i]:offsets[i + 1]]."""
        return self.once("utf8", _utf8)

    def once(self, name: str, make: Callable[[Block], Any]) -> Any:
        """`make(self)`, computed the first time and remembered under `name` as long as this block lives."""
        if name not in self._cache:
            self._cache[name] = make(self)
        return self._cache[name]


def _utf8(block: Block) -> Utf8:
    encoded = [text.encode("utf-8") for text in block.texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return Utf8(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


@dataclass
class Result:
    """What a step says of a block of n documents."""

    reasons: Sequence[str | None]
    """[n]: why a document is dropped, in a few words and the same for all that fail the same rule; None: it stays."""
    texts: list[str] | None = None
    """[n]: the changed texts; None: none changed."""
    metadata: list[dict[str, Any]] | None = None
    """[n]: the changed metadata; None: none changed."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Anything else worth counting, by name, as {"e-mail addresses": 12}."""


class Step(Protocol):
    """One step, made from its configuration; it may hold what it loaded once (a model, a list)."""

    def apply(self, block: Block) -> Result:
        """Judge or change every document of `block` (never empty)."""
        ...


class Comparison(Protocol):
    """A step that compares all documents with each other: signals by document, a decision on the engine, then verdicts.

    Documents have ids: number of the unit of input · 2^32 + place in it, so that ids rise in the order of the corpus.
    Signals of each unit are one Parquet file. `decide` runs once, on the engine (Daft: native, or Ray), with memory
    that does not grow with the number of documents where that can be had; the folder it fills is all that workers
    read afterwards. Same documents, same decision, byte for byte, whatever the number of workers.
    """

    def signals(self, block: Block, ids: NDArray[np.int64]) -> Any:
        """What the decision needs to know of `block`, as a pyarrow.Table with any number of rows; ids: [len(block)]."""
        ...

    def decide(self, files: Sequence[str], folder: Path, excluded: Sequence[str]) -> dict[str, Any]:
        """Write the decision into `folder` (there and empty); returns figures worth showing.

        files: the signals of all units, in order. excluded: Parquet files with a column `document` (ids) that
        earlier comparisons of the same phase drop; they count as not there. A step that drops whole documents writes
        `dropped-*.parquet` with `document` and `kept` (the id of the document that stands for it), sorted by document.
        """
        ...

    def load(self, folder: Path) -> None:
        """Read a decision, in a worker, before `apply`."""
        ...

    def apply(self, block: Block, ids: NDArray[np.int64]) -> Result:
        """Judge or change every document of `block` by the decision."""
        ...
