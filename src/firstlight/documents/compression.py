"""Decompressed bytes of gzip, Zstandard, bzip2 and xz streams, with bounded memory.

The standard library's file objects tell damage in five ways and a stream cut short not always; here every kind of
damage is a `DamagedStream`, after everything before it was delivered, and no input makes the output of one step large.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

GZIP = b"\x1f\x8b\x08"
BZIP2 = b"BZh"
XZ = b"\xfd7zXZ\0"
ZSTANDARD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))
MAGIC_BYTES = 6
"""So many first bytes tell the compression."""

_XZ_MEMORY_BYTES = 512 << 20


class DamagedStream(Exception):
    """A compressed stream ends early or is damaged; the message is the reason."""


def decompressed(source: io.BufferedReader, head: bytes) -> io.RawIOBase | None:
    """The decompressed bytes of `source`, which begins with `head`; None when it is not compressed.

    Several members or frames make one stream. Reading raises DamagedStream where the stream is broken.
    """
    for magics, make, feed_bytes in _FORMATS:
        if head.startswith(magics):
            return _Decompressed(source, magics, make, feed_bytes)
    return None


class _Member(Protocol):
    """One member or frame, fed piece by piece."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """`zlib.decompressobj` with the interface that the decompressors of `bz2` and `lzma` have."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        tail = self._stream.unconsumed_tail
        out = self._stream.decompress(tail + data if tail else data, max_length)
        self.needs_input = not self._stream.unconsumed_tail and len(out) < max_length
        return out


class _Zstandard:
    """A frame; unlike `stream_reader` it tells one that ends early from a finished one."""

    _library = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    needs_input = True

    def __init__(self) -> None:
        self._frame = self._library.decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Everything that `data` stands for: as large as it is, whatever `max_length`."""
        return self._frame.decompress(data)


_FORMATS: tuple[tuple[tuple[bytes, ...], Callable[[], _Member], int], ...] = (
    ((GZIP,), _Gzip, 1 << 16),
    # 2 KiB of Zstandard stand for at most 64 MiB: one block of 128 KiB for every 4 bytes.
    ((ZSTANDARD, *_SKIPPABLE), _Zstandard, 1 << 11),
    ((BZIP2,), bz2.BZ2Decompressor, 1 << 16),
    ((XZ,), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), 1 << 16),
)


class _Decompressed(io.RawIOBase):
    """Members of one format, one after the other; read on after damage, it goes on with the next member in sight."""

    def __init__(
        self, source: io.BufferedReader, magics: tuple[bytes, ...], make: Callable[[], _Member], feed_bytes: int
    ) -> None:
        self._source, self._magics, self._make, self._feed_bytes = source, magics, make, feed_bytes
        self._member: _Member | None = None
        self._fed = b""
        self._ready = memoryview(b"")
        self._is_lost = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._member is None and not self._begin():
                return 0
            self._ready = memoryview(self._step(len(buffer)))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _begin(self) -> bool:
        """Start the next member; false at the end. Zeros that pad the file, as on tape, are passed over."""
        if self._is_lost:
            self._seek_member()
        self._fed = self._fed.lstrip(b"\0")
        while len(self._fed) < MAGIC_BYTES and (more := self._source.read(self._feed_bytes)):
            self._fed = (self._fed + more).lstrip(b"\0")
        if not self._fed:
            return False
        if not self._fed.startswith(self._magics):
            self._is_lost = True
            raise DamagedStream("compressed stream is followed by something else")
        self._member = self._make()
        return True

    def _seek_member(self) -> None:
        """Pass over what is fed up to the next place that looks like the beginning of a member."""
        self._is_lost = False
        while True:
            places = [place for magic in self._magics if (place := self._fed.find(magic, 1)) > 0]
            if places:
                self._fed = self._fed[min(places) :]
                return
            more = self._source.read(self._feed_bytes)
            self._fed = self._fed[-MAGIC_BYTES:] + more if more else b""
            if not more:
                return

    def _step(self, max_length: int) -> bytes:
        assert self._member is not None
        data = b""
        if self._member.needs_input:
            data = self._fed or self._source.read(self._feed_bytes)
            self._fed = b""
            if not data:
                self._member = None
                raise DamagedStream("compressed stream ends early")
        try:
            out = self._member.decompress(data, max_length)
        except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError) as problem:
            self._member, self._fed, self._is_lost = None, data, True
            raise DamagedStream(f"compressed stream is damaged ({problem})") from None
        if self._member.eof:
            self._fed = self._member.unused_data
            self._member = None
        return out
