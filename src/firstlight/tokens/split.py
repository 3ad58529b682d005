"""One split of a source as one long row of tokens, over all the files that hold it.

Whoever reads tokens reads them from a `Split`: any stretch, any document, any sequence of the indexed files below it.
Files are mapped when they are first read, so the first token of a trillion is as near as the first of a thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.support.errors import DataError
from firstlight.tokens.indexed import IndexedReader, data_path, index_path

DESCRIPTION = "dataset.json"
TOKENS_AT_ONCE = 1 << 22
"""So many are held to be verified."""
UNKNOWN_LANGUAGE = "unknown"
"""Stands for the language of documents whose metadata name none."""


@dataclass(frozen=True)
class Shard:
    """What `dataset.json` says of one pair of files `NAME.bin`, `NAME.idx`."""

    name: str
    tokens: int
    documents: int
    text_bytes: int
    """UTF-8 bytes of the documents' text."""
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


@dataclass
class LanguageCounts:
    """What a split holds in one language."""

    documents: int = 0
    tokens: int = 0
    """EOD included."""
    text_bytes: int = 0
    """UTF-8 bytes of the documents' text."""
    characters: int = 0
    """Code points of the documents' text."""

    def add(self, documents: int, tokens: int, text_bytes: int, characters: int) -> None:
        """Count more."""
        self.documents += documents
        self.tokens += tokens
        self.text_bytes += text_bytes
        self.characters += characters


def language_of(metadata: Mapping[str, Any]) -> str:
    """The language that a document's metadata name; `UNKNOWN_LANGUAGE` where that is no name."""
    language = metadata.get("language")
    return language if isinstance(language, str) and 0 < len(language) <= 32 else UNKNOWN_LANGUAGE


class Split:
    """The shards of one split as one row of `num_tokens` tokens; every document ends with the EOD token."""

    remedy = "so tokenize it again"
    """What to do about an id outside the vocabulary, as the end of a sentence."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        dtype: np.dtype[Any],
        by_language: Mapping[str, LanguageCounts] | None = None,
    ) -> None:
        self.folder = folder
        self.by_language = dict(by_language or {})
        """Counts by the language that the documents' metadata name; empty in datasets written before it was counted."""
        self.shards = tuple(shards)
        self.dtype = dtype
        self._token_ends = list(accumulate(shard.tokens for shard in shards))
        self._document_ends = list(accumulate(shard.documents for shard in shards))
        self._readers: dict[int, IndexedReader] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens, EOD included."""
        return self._token_ends[-1]

    @property
    def num_documents(self) -> int:
        """Documents."""
        return self._document_ends[-1]

    @property
    def num_sequences(self) -> int:
        """Sequences of the indexed files; in those that Firstlight writes a document is one. Opens every file."""
        return self._sequence_ends[-1]

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text that was tokenized."""
        return sum(shard.text_bytes for shard in self.shards)

    def read(self, start: int, length: int) -> np.ndarray:
        """[length] tokens from `start` on, in the stored dtype; a read-only view where they lie in one shard.

        IndexError when that is not inside [0, num_tokens).
        """
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + length} of {self.num_tokens}")
        parts = []
        while length > 0:
            number = bisect_right(self._token_ends, start)
            begin = self._token_ends[number] - self.shards[number].tokens
            part = self._reader(number).read(start - begin, length)
            parts.append(part)
            start, length = start + len(part), length - len(part)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def sequence_lengths(self) -> np.ndarray:
        """[num_sequences] int32: tokens of each sequence."""
        return np.concatenate([self._reader(number).lengths for number in range(len(self.shards))])

    def sequence_start(self, sequence: int) -> int:
        """First token of a sequence, counted in this split."""
        number = bisect_right(self._sequence_ends, sequence)
        reader = self._reader(number)
        begin = self._token_ends[number] - self.shards[number].tokens
        return begin + reader.bounds(sequence - self._sequence_ends[number] + reader.num_sequences)[0]

    @cached_property
    def _sequence_ends(self) -> list[int]:
        return list(accumulate(self._reader(number).num_sequences for number in range(len(self.shards))))

    def place(self, position: int) -> str:
        """Where a token of this split lies, for an error: the file and its number there."""
        number = bisect_right(self._token_ends, position)
        begin = self._token_ends[number] - self.shards[number].tokens
        return f"{data_path(self.folder / self.shards[number].name)}, token {position - begin:,}"

    def document_bounds(self, document: int) -> tuple[int, int]:
        """(first token, one past its EOD) of a document in this split. IndexError past the end."""
        if not 0 <= document < self.num_documents:
            raise IndexError(f"document {document} of {self.num_documents}")
        number = bisect_right(self._document_ends, document)
        shard, reader = self.shards[number], self._reader(number)
        sequences = reader.document_sequences(document - self._document_ends[number] + shard.documents)
        begin = self._token_ends[number] - shard.tokens
        if not sequences:
            raise DataError(f"{index_path(reader.prefix)}: an empty document; every one ends with EOD. It is damaged.")
        first = begin + reader.bounds(sequences[0])[0]
        return first, begin + sum(reader.bounds(sequences[-1]))

    def documents(self) -> Iterator[np.ndarray]:
        """Every document in order: [length] tokens with EOD at the end."""
        for document in range(self.num_documents):
            start, end = self.document_bounds(document)
            yield self.read(start, end - start)

    def _reader(self, number: int) -> IndexedReader:
        reader = self._readers.get(number)
        if reader is None:
            shard = self.shards[number]
            reader = IndexedReader(self.folder / shard.name)
            if reader.dtype != self.dtype or reader.num_documents != shard.documents:
                raise DataError(
                    f"{index_path(reader.prefix)}: {reader.num_documents} documents of {reader.dtype.name}, but "
                    f"{DESCRIPTION} says {shard.documents} of {self.dtype.name}; it is damaged."
                )
            self._readers[number] = reader
        return reader


def check_ids(tokens: np.ndarray, vocab_size: int, split: Split, start: int, whose: str = "") -> None:
    """DataError, which names the place, for the first of `tokens` that is outside the vocabulary.

    They were read of `split` from token `start` on. whose: the error begins so.
    """
    outside = np.flatnonzero((tokens >= vocab_size) | (tokens < 0))
    if not len(outside):
        return
    place = split.place(start + int(outside[0]))
    raise DataError(
        f"{whose}token id {tokens[outside[0]]} at {place} is outside the vocabulary of {vocab_size}; "
        f"the dataset was made with another tokenizer or is damaged, {split.remedy}."
    )
