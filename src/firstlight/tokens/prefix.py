"""Token ids that Megatron-LM's `preprocess_data.py` wrote, used as they are: `PREFIX.bin` and `PREFIX.idx`.

Nothing is copied and no token is read to open one. Where a folder of Firstlight's has a part that is held out by
documents, a prefix is cut by the numbers of its sequences, as Megatron-LM's `--split` cuts it
(`blended_megatron_dataset_builder.py` and `blended_megatron_dataset_config.py` of megatron-core 0.16.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from firstlight.config.data import split_shares
from firstlight.support.errors import DataError
from firstlight.tokens.indexed import IndexedReader, data_path, index_path
from firstlight.tokens.split import TOKENS_AT_ONCE, Split, check_ids

DEFAULT_SPLIT = "969, 30, 1"
"""What Megatron-LM takes where `--split` is not given."""
PARTS = ("train", "validation", "test")
LOOKED_AT = 64
"""Places of a prefix that are looked at before training."""
TOKENS_OF_A_PLACE = 4096
_HASHED_AT_EITHER_END = 1 << 20
"""Bytes."""


class PrefixSplit(Split):
    """Sequences [first, end) of a prefix as one row of tokens.

    Documents are those with a sequence in the range, of each the part that is; one may be empty, and whether it ends
    with EOD is as it was written.
    """

    remedy = "so name the one that made it (tokenizer.path), or raise model.vocab_size"

    def __init__(self, reader: IndexedReader, first: int, end: int) -> None:
        super().__init__(reader.prefix.parent, (), reader.dtype)
        self._whole, self._first, self._end = reader, first, end
        self._begin = self._token_at(first)

    def _token_at(self, sequence: int) -> int:
        """First token of a sequence in the `.bin`; one past the last where there is no such sequence."""
        if sequence < self._whole.num_sequences:
            return self._whole.bounds(sequence)[0]
        return self._whole.bin_bytes // self.dtype.itemsize

    @cached_property
    def num_tokens(self) -> int:
        """Tokens, with EOD where the documents end with one."""
        return self._token_at(self._end) - self._begin

    @property
    def num_sequences(self) -> int:
        """Sequences of the range."""
        return self._end - self._first

    @cached_property
    def _documents(self) -> range:
        """Numbers of the documents that have a sequence here, and of empty ones between them."""
        if self._first == self._end:
            return range(0)
        starts = self._whole.document_index
        first = int(np.searchsorted(starts, self._first, "right")) - 1
        return range(first, int(np.searchsorted(starts, self._end, "left")))

    @property
    def num_documents(self) -> int:
        """Documents that have a sequence here, and empty ones between them."""
        return len(self._documents)

    @property
    def text_bytes(self) -> int:
        """0: a prefix does not say from how much text it was made."""
        return 0

    def read(self, start: int, length: int) -> np.ndarray:
        """[length] read-only tokens from `start` on, in the stored dtype. IndexError outside [0, num_tokens)."""
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + length} of {self.num_tokens}")
        return self._whole.read(self._begin + start, length)

    def document_bounds(self, document: int) -> tuple[int, int]:
        """(first token, one past the last) of a document in this split. IndexError past the end."""
        if not 0 <= document < self.num_documents:
            raise IndexError(f"document {document} of {self.num_documents}")
        sequences = self._whole.document_sequences(self._documents[document])
        first, end = (min(max(bound, self._first), self._end) for bound in (sequences.start, sequences.stop))
        return self._token_at(first) - self._begin, self._token_at(end) - self._begin

    def sequence_lengths(self) -> np.ndarray:
        """[num_sequences] int32: tokens of each sequence, mapped."""
        return self._whole.lengths[self._first : self._end]

    def sequence_start(self, sequence: int) -> int:
        """First token of a sequence, counted in this split."""
        return self._token_at(self._first + sequence) - self._begin

    def place(self, position: int) -> str:
        """Where a token of this split lies, for an error: the file and its number there."""
        return f"{data_path(self._whole.prefix)}, token {self._begin + position:,}"


class PrefixDataset:
    """An opened prefix."""

    def __init__(self, prefix: str | Path) -> None:
        """Open in constant time. DataError for files that are no such pair, or hold something else than token ids."""
        self.prefix = Path(prefix)
        self.reader = IndexedReader(self.prefix)
        if self.reader.dtype.kind not in "iu":
            raise DataError(
                f"{index_path(prefix)}: its elements are {self.reader.dtype.name}; token ids are whole numbers."
            )
        if self.reader.modes is not None:
            raise DataError(
                f"{index_path(prefix)}: it says the mode of every sequence, so the data is multimodal; Firstlight "
                "reads text only. Write the text's sequences alone."
            )

    def splits(self, shares: str) -> dict[str, Split]:
        """ "train" and "validation", those that are not empty, of shares as `--split` has them ("969, 30, 1").

        Part number i is sequences [round(a·S), round(b·S)) of S, a and b being the sums of the shares before it and
        with it.
        """
        size = self.reader.num_sequences
        ends = [round(share * float(size)) for share in accumulate(split_shares(shares), initial=0.0)]
        parts = zip(PARTS[:2], ends[:-1], ends[1:], strict=False)
        return {name: PrefixSplit(self.reader, first, end) for name, first, end in parts if end > first}

    def whole(self) -> Split:
        """All of it."""
        return PrefixSplit(self.reader, 0, self.reader.num_sequences)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the sizes of both files and of 1 MiB at either end of each: no token is read for it twice.

        It tells other data, not a damaged byte in the middle: a prefix records no hash.
        """
        digest = hashlib.sha256(f"{self.reader.idx_bytes} {self.reader.bin_bytes}".encode())
        for path in (index_path(self.prefix), data_path(self.prefix)):
            with path.open("rb") as handle:
                digest.update(handle.read(_HASHED_AT_EITHER_END))
                handle.seek(max(0, path.stat().st_size - _HASHED_AT_EITHER_END))
                digest.update(handle.read(_HASHED_AT_EITHER_END))
        return digest.hexdigest()

    def faults(
        self, vocab_size: int | None = None, *, quick: bool = False, advance: Callable[[int], None] = lambda size: None
    ) -> Iterator[str]:
        """A sentence when an entry of the index does not fit its neighbours; with `vocab_size`, when an id does not
        either, for which every token is read. quick: what opening checks, no more. advance: is told bytes read."""
        if quick:
            return
        try:
            self.reader.verify()
            advance(self.reader.idx_bytes)
            whole = self.whole()
            for start in range(0, 0 if vocab_size is None else whole.num_tokens, TOKENS_AT_ONCE):
                part = whole.read(start, min(TOKENS_AT_ONCE, whole.num_tokens - start))
                check_ids(part, vocab_size or 0, whole, start)
                advance(part.nbytes)
        except DataError as problem:
            yield str(problem)


def look_at_ids(split: Split, vocab_size: int, whose: str) -> None:
    """Check token ids at places spread evenly over a split, and at its end. DataError names the first bad one.

    All others are checked when they are read, before a step uses them.
    """
    last = max(0, split.num_tokens - TOKENS_OF_A_PLACE)
    for start in sorted({last * number // (LOOKED_AT - 1) for number in range(LOOKED_AT)}):
        tokens = split.read(start, min(TOKENS_OF_A_PLACE, split.num_tokens - start))
        check_ids(tokens, vocab_size, split, start, whose)


def is_prefix(path: str | Path) -> bool:
    """Whether `path` is a prefix rather than a folder of Firstlight's.

    A folder may have the same name: Megatron-LM puts its cache there.
    """
    return index_path(path).is_file() and not (Path(path) / "dataset.json").is_file()
