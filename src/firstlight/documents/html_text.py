"""The text of web pages, by trafilatura, in a program of its own.

A page that makes the extraction run away, or crash, ends that program and not the run: its processor time and memory
are limited, and the next page gets a new one. Options are those of FineWeb (https://arxiv.org/abs/2406.17557) but for
`deduplicate`, which remembers earlier pages, so that the text of a page would depend on what was read before it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import resource
import struct
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from firstlight.support.errors import DataError

OPTIONS: dict[str, Any] = {"favor_precision": True, "include_comments": False, "deduplicate": False}
"""Of `trafilatura.extract`."""
CPU_SECONDS = 30
"""A page that needs more processor time than this is given up."""
MEMORY_BYTES = 4 << 30

_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_module(sys.argv[1], run_name='__main__')"
_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_HEADER = struct.Struct(">?I")

_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{2,40})""", re.IGNORECASE)
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
"""Names that the web uses for a larger character set than they stand for (https://encoding.spec.whatwg.org)."""
_NO_CHARSETS = {"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}


class PageFailed(Exception):
    """No text could be taken out of a page; the message is the reason."""


class HtmlExtractor:
    """`text(html)` for one page after another; the program behind it starts with the first page."""

    def __init__(self, path: str) -> None:
        """`path` is named when trafilatura is missing."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def text(self, html: str) -> str:
        """The main text of a page, empty when it has none. Raises PageFailed, and DataError without trafilatura."""
        if self._process is None:
            self._process = self._start()
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            _send(self._process.stdin, True, html)
            good, text = _receive(self._process.stdout)
        except (EOFError, BrokenPipeError):
            self.close()
            raise PageFailed(
                f"text extraction failed: more than {CPU_SECONDS} s of processor time, or a crash"
            ) from None
        if not good:
            raise PageFailed(f"text extraction failed: {text}")
        return text

    def close(self) -> None:
        """End the program."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    def __enter__(self) -> HtmlExtractor:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, __name__, _SOURCE_ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            process_group=0,
        )
        assert process.stdout is not None
        try:
            ready, problem = _receive(process.stdout)
        except EOFError:
            ready, problem = False, "the program that uses it does not start"
        if not ready:
            process.kill()
            process.communicate()
            raise DataError(
                f"{self._path}: needs the `trafilatura` package; pip install 'firstlight[corpus]' ({problem})."
            )
        return process


def extractor_version() -> str:
    """Version of trafilatura, or "" when it is not installed."""
    try:
        return metadata.version("trafilatura")
    except metadata.PackageNotFoundError:
        return ""


def decode_html(data: bytes, content_type: str) -> tuple[str, bool]:
    """(page, repaired) by the byte-order mark, else the character set of the HTTP header, of a meta element, or UTF-8.

    A character set that does not fit the bytes gives way to the next; when none fits, the first one's gaps are U+FFFD.
    """
    header = re.search(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", content_type, re.IGNORECASE)
    meta = _DECLARED.search(data, 0, 4096)
    names = [header[1] if header else "", meta[1].decode("ascii") if meta else "", "utf-8"]
    if data.startswith(codecs.BOM_UTF8):
        names = ["utf-8-sig"]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        names = ["utf-16"]
    charsets = [charset for name in names if (charset := _charset(name))]
    for charset in charsets:
        try:
            return data.decode(charset), False
        except UnicodeDecodeError:
            continue
    return data.decode(charsets[0], "replace"), True


def _charset(name: str) -> str | None:
    """Python's name for a character set of the web, None for what is none."""
    try:
        found = codecs.lookup(name)
    except LookupError:
        return None
    known = found.name not in _NO_CHARSETS and getattr(found, "_is_text_encoding", True)
    return _MEANT.get(found.name, found.name) if known else None


def _send(stream: IO[bytes], good: bool, text: str) -> None:
    data = text.encode("utf-8", "replace")
    stream.write(_HEADER.pack(good, len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[bool, str]:
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    good, size = _HEADER.unpack(header)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return good, data.decode("utf-8")


def main() -> None:
    """The program: pages on standard input, their texts on standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        import trafilatura
    except ImportError as problem:
        _send(answers, False, " ".join(str(problem).split())[:200])
        return
    _send(answers, True, "")
    while True:
        try:
            _, page = _receive(sys.stdin.buffer)
        except EOFError:
            return
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + CPU_SECONDS, resource.RLIM_INFINITY))
        try:
            text = trafilatura.extract(page, **OPTIONS) or ""
        except Exception as problem:
            _send(answers, False, type(problem).__name__)
        else:
            _send(answers, True, text)


if __name__ == "__main__":
    main()
