"""Bytes out of local and remote files that may be compressed, and lines out of bytes, with bounded memory.

Compression is told by the first bytes, not by the name. A stream that ends early or is damaged raises
`DamagedStream` at that point, after everything before it was delivered; a line beyond the limit is passed over
without being held.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from firstlight.documents.compression import MAGIC_BYTES, DamagedStream, decompressed
from firstlight.documents.remote import is_remote, open_remote
from firstlight.support.console import human_bytes
from firstlight.support.errors import DataError

MAX_LINE_BYTES = 256_000_000
"""Longest line, row of a table, and plain-text file that is read as a document."""
SNIFFED_BYTES = 65536

BINARY = "binary data, not text"

_BLOCK_BYTES = 1 << 20
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"%PDF-", "a PDF; extract its text first"),
    (b"\xff\xfe", "UTF-16 text; convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text; convert it to UTF-8"),
    (b"PAR1", "Parquet data; name it .parquet"),
    (b"ARROW1", "Arrow data; name it .arrow"),
    (b"WARC/1.", "WARC data; name it .warc"),
)


@contextlib.contextmanager
def open_bytes(path: str, consumed: Callable[[int], None] | None = None) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of a file; `consumed(n)` hears of every n bytes taken from the disk or the network.

    Reading raises DamagedStream where the compressed stream is broken, DataError where the disk or the network is.
    """
    raw = _Source(path, consumed)
    try:
        source: io.BufferedReader[Any] = io.BufferedReader(raw, _BLOCK_BYTES)
        stream: Any = decompressed(source, source.peek(MAGIC_BYTES))
        yield source if stream is None else io.BufferedReader(stream, _BLOCK_BYTES)
    finally:
        raw.close()


def what_is_wrong(head: bytes) -> str | None:
    """Why a file that begins with `head` is no text, or None when it may be."""
    for magic, reason in _FOREIGN:
        if head.startswith(magic):
            return reason
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    controls = len(head) - len(head.translate(None, _CONTROLS))
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as problem:
        broken = problem.reason != "unexpected end of data"
    else:
        broken = False
    if controls > len(head) / 10 or (broken and b"\0" in head):
        return BINARY
    return None


def too_long(what: str) -> str:
    """The reason for a line, row or file over the limit."""
    return f"{what} longer than {human_bytes(MAX_LINE_BYTES)}"


_CONTROLS = bytes((*range(8), *range(14, 27), *range(28, 32)))


def lines(handle: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line without its end) for every line that is not blank; None for one over MAX_LINE_BYTES.

    A byte-order mark before the first line is stripped. Raises DamagedLine at the line that was reached.
    """
    number, size = 1, 0
    begun: list[bytes] = []
    while True:
        try:
            block = handle.read1(_BLOCK_BYTES)
        except DamagedStream as problem:
            raise DamagedLine(number, str(problem)) from None
        pieces = block.split(b"\n")
        for piece in pieces[:-1] if block else [b""]:
            size += len(piece)
            if size > MAX_LINE_BYTES:
                begun.clear()
                yield number, None
            else:
                if begun:
                    piece = b"".join((*begun, piece))
                    begun.clear()
                if number == 1:
                    piece = piece.removeprefix(b"\xef\xbb\xbf")
                if piece and not piece.isspace():
                    yield number, piece
            number, size = number + 1, 0
        if not block:
            return
        size += len(pieces[-1])
        if size > MAX_LINE_BYTES:
            begun.clear()
        elif pieces[-1]:
            begun.append(pieces[-1])


class DamagedLine(Exception):
    """The stream broke off at `line`; `reason` says how."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


class _Source(io.RawIOBase):
    """A file that reports what is read from it, and whose errors are sentences."""

    def __init__(self, path: str, consumed: Callable[[int], None] | None) -> None:
        self._path, self._consumed = path, consumed
        self._file = open_remote(path) if is_remote(path) else _open_local(path)
        self._left = 0 if is_remote(path) else os.fstat(self._file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._file.readinto(buffer) or 0
        except OSError as problem:
            raise DataError(f"{self._path}: cannot be read ({problem.strerror}).") from None
        self._left -= count
        if not count and self._left > 0:
            raise DataError(f"{self._path}: became shorter while it was read; start again when nothing writes to it.")
        if self._consumed and count:
            self._consumed(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _open_local(path: str) -> io.RawIOBase:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DataError(f"{path}: not a regular file.")
        return io.FileIO(descriptor)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}).") from None
