"""Bytes out of files that may be compressed, and lines out of bytes, with bounded memory.

Compression is told by the first bytes, not by the name. A stream that ends early or is damaged raises
`DamagedStream` at that point, after everything before it was delivered; a line beyond the limit is passed over
without being held.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from firstlight.support.errors import DataError

MAX_LINE_BYTES = 256_000_000
"""Longest line, and longest plain-text file, that is read as a document."""
SNIFFED_BYTES = 65536

GZIP = b"\x1f\x8b"
ZSTANDARD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))

_FOREIGN = (
    (b"BZh", "bzip2 data; use gzip or zstandard"),
    (b"\xfd7zXZ", "xz data; use gzip or zstandard"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"%PDF-", "a PDF; extract its text first"),
    (b"\xff\xfe", "UTF-16 text; convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text; convert it to UTF-8"),
    (b"PAR1", "Parquet data; name it .parquet"),
    (b"ARROW1", "Arrow data; name it .arrow"),
)


class DamagedStream(Exception):
    """A compressed stream ends early or is damaged; the message is the reason."""


@contextlib.contextmanager
def open_bytes(path: str, consumed: Callable[[int], None] | None = None) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of a file; `consumed(n)` hears of every n bytes taken from the disk.

    Reading raises DamagedStream where the compressed stream is broken, DataError where the disk is.
    """
    raw = _Disk(path, consumed)
    try:
        head = raw.peek()
        stream: Any = raw
        if head.startswith(GZIP):
            stream = _Gzip(raw)
        elif head.startswith((ZSTANDARD, *_SKIPPABLE)):
            stream = _Zstandard(raw)
        yield io.BufferedReader(stream, 1 << 20)
    finally:
        raw.close()


def what_is_wrong(head: bytes) -> str | None:
    """Why a file that begins with `head` is no text, or None when it may be."""
    for magic, reason in _FOREIGN:
        if head.startswith(magic):
            return reason
    controls = len(head) - len(head.translate(None, _CONTROLS))
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as problem:
        broken = problem.reason != "unexpected end of data"
    else:
        broken = False
    if controls > len(head) / 10 or (broken and b"\0" in head):
        return "binary data, not text"
    return None


_CONTROLS = bytes((*range(8), *range(14, 27), *range(28, 32)))


def lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) for every line that is not blank; None for a line over MAX_LINE_BYTES.

    A byte-order mark before the first line is stripped. Raises DamagedStream with `line` set to the line reached.
    """
    number = 0
    try:
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                line = b""
                while (rest := handle.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                yield number, None
            elif not line.isspace():
                yield number, line
    except DamagedStream as problem:
        raise DamagedLine(number + 1, str(problem)) from None


class DamagedLine(Exception):
    """The stream broke off at `line`; `reason` says how."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


class _Disk(io.RawIOBase):
    """A file that reports what is read from it, and whose errors are sentences."""

    def __init__(self, path: str, consumed: Callable[[int], None] | None) -> None:
        self._path, self._consumed = path, consumed
        try:
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            raise DataError(f"{path}: no such file.") from None
        except OSError as problem:
            raise DataError(f"{path}: cannot be read ({problem.strerror}).") from None

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        try:
            head = self._file.read(8) or b""
            self._file.seek(0)
        except OSError as problem:
            raise DataError(f"{self._path}: cannot be read ({problem.strerror}).") from None
        return head

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._file.readinto(buffer) or 0
        except OSError as problem:
            raise DataError(f"{self._path}: cannot be read ({problem.strerror}).") from None
        if self._consumed and count:
            self._consumed(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Gzip(io.RawIOBase):
    """gzip, one or many members, with every kind of damage told the same way."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(raw, 1 << 17), mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._gzip.read1(len(buffer))
        except EOFError:
            raise DamagedStream("compressed stream ends early") from None
        except (gzip.BadGzipFile, zlib.error) as problem:
            raise DamagedStream(f"compressed stream is damaged ({problem})") from None
        buffer[: len(data)] = data
        return len(data)


class _Zstandard(io.RawIOBase):
    """Zstandard, one or many frames; unlike `stream_reader` it tells a frame that ends early from a finished one.

    Fed in slices of 2 KiB: a slice can stand for at most 64 MiB (one block of 128 KiB per 4 bytes), so that a stream
    made to explode cannot fill the memory.
    """

    SLICE_BYTES = 2048

    def __init__(self, raw: io.RawIOBase) -> None:
        self._source = io.BufferedReader(raw, 1 << 17)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame = self._decompressor.decompressobj()
        self._inside = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._source.read(self.SLICE_BYTES)
            if not data:
                if self._inside:
                    raise DamagedStream("compressed stream ends early")
                return 0
            self._ready = memoryview(self._decompress(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, data: bytes) -> bytes:
        pieces = []
        while data:
            try:
                pieces.append(self._frame.decompress(data))
            except zstandard.ZstdError as problem:
                raise DamagedStream(f"compressed stream is damaged ({problem})") from None
            data = b""
            self._inside = not self._frame.eof
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame = self._decompressor.decompressobj()
        return b"".join(pieces)
