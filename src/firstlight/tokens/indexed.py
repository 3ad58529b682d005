"""Token shards in Megatron-LM's indexed format, version 1: ids in `PREFIX.bin`, where sequences are in `PREFIX.idx`.

Megatron-LM, NeMo and others read and write it; it memory-maps and opens in constant time. Little-endian, no padding;
the index is: magic, version u64, dtype code u8, S sequences u64, D = documents + 1 u64, then int32[S] tokens of each
sequence, int64[S] its byte offset, int64[D] first sequence of each document, and int8[S] modes in multimodal data.
Source: `megatron/core/datasets/indexed_dataset.py` of Megatron-LM.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from firstlight.support.errors import DataError
from firstlight.support.files import atomic_file

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, dtype code, sequences, length of the document index: 34 bytes."""

DTYPES = {code: np.dtype(name) for code, name in enumerate(("u1", "i1", "<i2", "<i4", "<i8", "<f8", "<f4", "<u2"), 1)}
"""Element type by dtype code."""

LONGEST_SEQUENCE = 2**31 - 1
"""Tokens of one sequence that an int32 length can hold."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 below 65500 tokens, else int32: the rule of Megatron-LM's `preprocess_data.py`."""
    return DTYPES[8] if vocab_size < 65500 else DTYPES[4]


def index_path(prefix: str | Path) -> Path:
    """`PREFIX.idx`."""
    return Path(f"{prefix}.idx")


def data_path(prefix: str | Path) -> Path:
    """`PREFIX.bin`."""
    return Path(f"{prefix}.bin")


class IndexedWriter:
    """Write one shard, document by document; both files take their names only when the whole shard is written.

    Use as a context manager: an exception inside leaves nothing behind. Memory is 12 bytes a document; tokens go
    straight to disk. After `close`, `bin_sha256`, `bin_bytes`, `idx_sha256` and `idx_bytes` describe the files.
    """

    def __init__(self, prefix: str | Path, dtype: DTypeLike) -> None:
        self.prefix = Path(prefix)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        codes = [code for code, known in DTYPES.items() if known == self.dtype]
        if not codes:
            known = ", ".join(dtype.name for dtype in DTYPES.values())
            raise DataError(f"{prefix}: the indexed format has no code for {self.dtype}; it has {known}.")
        self._code = codes[0]
        self._lengths = array("i")
        self._documents = array("q", [0])
        self.bin_bytes = self.idx_bytes = 0
        self.bin_sha256 = self.idx_sha256 = ""
        self._digest = hashlib.sha256()
        index_path(prefix).unlink(missing_ok=True)
        self._whole_or_absent = atomic_file(data_path(prefix))
        self._bin = self._whole_or_absent.__enter__()

    @property
    def num_tokens(self) -> int:
        """Tokens written so far."""
        return self.bin_bytes // self.dtype.itemsize

    @property
    def num_documents(self) -> int:
        """Documents ended so far."""
        return len(self._documents) - 1

    def add_sequence(self, tokens: ArrayLike) -> None:
        """Append one sequence of token ids, [length], to the document in progress.

        Raises DataError when an id does not fit the dtype or the sequence is longer than `LONGEST_SEQUENCE`.
        """
        data = self._cast(tokens)
        if len(data) > LONGEST_SEQUENCE:
            raise DataError(f"{self.prefix}: a sequence of {len(data)} tokens; the format holds {LONGEST_SEQUENCE}.")
        self._write(data)
        self._lengths.append(len(data))

    def end_document(self) -> None:
        """Close the document in progress; one without sequences is empty, and allowed."""
        self._documents.append(len(self._lengths))

    def add_document(self, tokens: ArrayLike) -> None:
        """Append a document of one sequence."""
        self.add_sequence(tokens)
        self.end_document()

    def add_documents(self, tokens: ArrayLike, lengths: ArrayLike) -> None:
        """Append documents of one sequence each: `tokens` one after the other, `lengths` of each, in tokens.

        Raises DataError as `add_sequence` does, and when the lengths are not those of `tokens`.
        """
        if self._documents[-1] != len(self._lengths):
            raise DataError(f"{self.prefix}: a document is in progress; end it first (end_document).")
        sizes = np.asarray(lengths, dtype=np.int64)
        data = self._cast(tokens)
        if sizes.ndim != 1 or sizes.sum() != len(data) or (len(sizes) and sizes.min() < 0):
            raise DataError(f"{self.prefix}: lengths of {sizes.sum()} tokens in all for {len(data)} tokens.")
        if len(sizes) and sizes.max() > LONGEST_SEQUENCE:
            raise DataError(f"{self.prefix}: a sequence of {sizes.max()} tokens; the format holds {LONGEST_SEQUENCE}.")
        self._write(data)
        first = len(self._lengths)
        self._lengths.frombytes(sizes.astype(np.int32).tobytes())
        self._documents.frombytes(np.arange(first + 1, first + 1 + len(sizes), dtype=np.int64).tobytes())

    def _write(self, data: np.ndarray) -> None:
        raw = data.data if data.flags.c_contiguous and len(data) else data.tobytes()
        self._bin.write(raw)
        self._digest.update(raw)
        self.bin_bytes += data.nbytes

    def _cast(self, tokens: ArrayLike) -> np.ndarray:
        data = np.asarray(tokens)
        if data.ndim != 1:
            raise DataError(f"{self.prefix}: a sequence is one row of token ids, not an array of shape {data.shape}.")
        if len(data) == 0 or data.dtype == self.dtype:
            return data.astype(self.dtype, copy=False)
        cast = data.astype(self.dtype)
        if not np.array_equal(cast, data):
            wrong = data[cast != data][0]
            raise DataError(f"{self.prefix}: token id {wrong} does not fit {self.dtype.name}.")
        return cast

    def close(self) -> None:
        """Finish both files, the index last. Raises DataError when the last document was not ended."""
        if self._documents[-1] != len(self._lengths):
            problem = DataError(f"{self.prefix}: the last document was not ended (end_document).")
            self._whole_or_absent.__exit__(DataError, problem, None)
            raise problem
        self._whole_or_absent.__exit__(None, None, None)
        self.bin_sha256 = self._digest.hexdigest()
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        sizes = lengths.astype("<i8") * self.dtype.itemsize
        digest = hashlib.sha256()
        with atomic_file(index_path(self.prefix)) as handle:
            for part in (
                _HEADER.pack(MAGIC, VERSION, self._code, len(self._lengths), len(self._documents)),
                lengths.astype("<i4", copy=False).data,
                (np.cumsum(sizes, dtype="<i8") - sizes).data,
                np.frombuffer(self._documents, dtype=np.int64).astype("<i8", copy=False).data,
            ):
                handle.write(part)
                digest.update(part)
            self.idx_bytes = handle.tell()
        self.idx_sha256 = digest.hexdigest()

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is None:
            self.close()
        else:
            self._whole_or_absent.__exit__(*exception)


class IndexedReader:
    """A shard, memory-mapped: `reader[i]` is sequence i, `reader.document(d)` the sequences of document d.

    Opening reads the header and checks it against the sizes of both files: constant time. Every access checks the
    index entry that it uses, and `verify` checks all of them. Whatever does not fit is a DataError that names the file.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self._index_file, self._data_file = index_path(prefix), data_path(prefix)
        try:
            self.idx_bytes = self._index_file.stat().st_size
            self.bin_bytes = self._data_file.stat().st_size
            with self._index_file.open("rb") as handle:
                header = handle.read(_HEADER.size)
        except OSError as problem:
            raise DataError(f"{problem.filename}: cannot be read ({problem.strerror}).") from None
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise DataError(f"{self._index_file}: not an index of Megatron-LM's indexed format (MMIDIDX).")
        _, version, code, sequences, entries = _HEADER.unpack(header)
        if version != VERSION:
            raise DataError(f"{self._index_file}: version {version} of the indexed format; version {VERSION} is read.")
        if code not in DTYPES:
            raise DataError(f"{self._index_file}: unknown dtype code {code}; 1 to 8 are known.")
        self.dtype = DTYPES[code]
        self.num_sequences: int = sequences
        self.num_documents: int = entries - 1
        size = _HEADER.size + 12 * sequences + 8 * entries
        if entries < 1 or self.idx_bytes not in (size, size + sequences):
            raise DataError(
                f"{self._index_file}: {self.idx_bytes} bytes, but the header ({sequences} sequences, "
                f"{entries} document entries) asks for {size}; it is truncated or damaged."
            )
        self._has_modes = self.idx_bytes != size
        self._check_ends()

    def _check_ends(self) -> None:
        """First and last entries against the counts and the size of the data file."""
        if self.document_index[0] != 0 or self.document_index[-1] != self.num_sequences:
            raise DataError(
                f"{self._index_file}: the document index runs from {self.document_index[0]} to "
                f"{self.document_index[-1]}; 0 to {self.num_sequences} (the sequences) is due."
            )
        end = self.dtype.itemsize * sum(self.bounds(self.num_sequences - 1)) if self.num_sequences else 0
        if end != self.bin_bytes:
            raise DataError(
                f"{self._data_file}: {self.bin_bytes} bytes, but its index ends at byte {end}; "
                f"one of the two is truncated, damaged or of another shard."
            )

    @cached_property
    def _index(self) -> np.ndarray:
        return _map(self._index_file)

    def _array(self, start: int, count: int, dtype: str) -> np.ndarray:
        return self._index[start : start + count * np.dtype(dtype).itemsize].view(dtype)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[num_sequences] int32: tokens of each sequence."""
        return self._array(_HEADER.size, self.num_sequences, "<i4")

    @cached_property
    def offsets(self) -> np.ndarray:
        """[num_sequences] int64: first byte of each sequence in the `.bin`."""
        return self._array(_HEADER.size + 4 * self.num_sequences, self.num_sequences, "<i8")

    @cached_property
    def document_index(self) -> np.ndarray:
        """[num_documents + 1] int64: first sequence of each document; the last entry is num_sequences."""
        return self._array(_HEADER.size + 12 * self.num_sequences, self.num_documents + 1, "<i8")

    @cached_property
    def modes(self) -> np.ndarray | None:
        """[num_sequences] int8 modality of each sequence in a multimodal dataset, else None."""
        if not self._has_modes:
            return None
        return self._array(self.idx_bytes - self.num_sequences, self.num_sequences, "i1")

    @cached_property
    def tokens(self) -> np.ndarray:
        """Everything in the `.bin` as one read-only array of ids, mapped."""
        return _map(self._data_file).view(self.dtype)

    def read(self, start: int, length: int) -> np.ndarray:
        """[length] read-only ids from element `start` of `tokens` on, fewer at the end.

        DataError where the file has been cut short since it was opened: reading past the end of a mapped file would
        kill the process (SIGBUS), so its size is asked each time, which is one system call.
        """
        with suppress(FileNotFoundError):  # what is mapped outlives its name
            found = self._data_file.stat().st_size
            if found < self.bin_bytes:
                raise DataError(
                    f"{self._data_file}: {found} bytes, but {self.bin_bytes} when it was opened; it was cut short."
                )
        return self.tokens[start : start + length]

    def bounds(self, sequence: int) -> tuple[int, int]:
        """(first element, elements) of a sequence in `tokens`, checked against the size of the `.bin`."""
        offset, length = int(self.offsets[sequence]), int(self.lengths[sequence])
        size = self.dtype.itemsize
        if offset < 0 or length < 0 or offset % size or offset + length * size > self.bin_bytes:
            raise DataError(
                f"{self._index_file}: sequence {sequence} is {length} tokens at byte {offset}, which does not fit the "
                f"{self.bin_bytes} bytes of {self._data_file.name}; one of the two is truncated or damaged."
            )
        return offset // size, length

    def __len__(self) -> int:
        return self.num_sequences

    def __reduce__(self) -> tuple[type[IndexedReader], tuple[Path]]:
        """To another process goes the name: what is mapped would be copied."""
        return IndexedReader, (self.prefix,)

    def __getitem__(self, sequence: int) -> np.ndarray:
        """[length] read-only ids of one sequence. IndexError past the end."""
        if not 0 <= sequence < self.num_sequences:
            raise IndexError(f"sequence {sequence} of {self.num_sequences}")
        return self.read(*self.bounds(sequence))

    def document_sequences(self, document: int) -> range:
        """Numbers of the sequences that make up a document. IndexError past the end."""
        if not 0 <= document < self.num_documents:
            raise IndexError(f"document {document} of {self.num_documents}")
        first, last = int(self.document_index[document]), int(self.document_index[document + 1])
        if not 0 <= first <= last <= self.num_sequences:
            raise DataError(
                f"{self._index_file}: document {document} has sequences {first} to {last} of {self.num_sequences}; "
                "it is damaged."
            )
        return range(first, last)

    def document(self, document: int) -> list[np.ndarray]:
        """The sequences of a document; none for an empty one."""
        return [self[sequence] for sequence in self.document_sequences(document)]

    def verify(self) -> None:
        """Check every entry of the index: sequences follow each other without gap, documents do not run backwards.

        Reads the whole `.idx`. Raises DataError for the first that does not.
        """
        expected = 0
        for first in range(0, self.num_sequences, 1 << 20):
            part = slice(first, first + (1 << 20))
            sizes = self.lengths[part].astype(np.int64) * self.dtype.itemsize
            starts = expected + np.cumsum(sizes) - sizes
            wrong = np.flatnonzero((sizes < 0) | (self.offsets[part] != starts))
            if len(wrong):
                raise DataError(f"{self._index_file}: sequence {first + wrong[0]} has a wrong length or offset.")
            expected += int(sizes.sum())
        wrong = np.flatnonzero(np.diff(self.document_index) < 0)
        if len(wrong):
            raise DataError(f"{self._index_file}: document {wrong[0]} ends before it begins.")


def _map(path: Path) -> np.ndarray:
    """The bytes of a file, mapped read-only; an empty file cannot be mapped and is an empty array."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
