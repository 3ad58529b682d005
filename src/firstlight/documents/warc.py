"""Documents out of web archives (WARC 1.0 and 1.1, ISO 28500): pages as HTML, or as the plain text of WET files.

Records are read here and not by a library, so that a wrong length or a broken record costs that record alone, no
header is too long to hold, and everything that is passed over says why.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

from firstlight.documents.compression import GZIP, ZSTANDARD, DamagedStream
from firstlight.documents.document import BadLine, Document, Item, Skipped
from firstlight.documents.html_text import HtmlExtractor, PageFailed, decode_html
from firstlight.documents.json_lines import decode
from firstlight.documents.streams import open_bytes
from firstlight.support.console import human_bytes

MAX_PAGE_BYTES = 16_000_000
"""Largest record that is read as a page; Common Crawl itself cuts pages at 5 MiB."""

_MAX_HEADER_BYTES = 1 << 18
_TYPES = {"warcinfo", "request", "metadata", "revisit", "resource", "continuation"}
_HTML = {"text/html", "application/xhtml+xml"}
_LOOKS_LIKE_HTML = re.compile(rb"<(!doctype html|html|head|body|title)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """A record's headers by their names in lower case, and its block; None when it is too large to hold."""

    headers: dict[str, str]
    block: bytes | None


def read_warc(path: str, invalid_utf8: str, consumed: Callable[[int], None] | None) -> Iterator[Item]:
    """Every record of a WARC file as a Document, or as Skipped or a BadLine, whose line is the record's number."""
    with open_bytes(path, consumed) as handle, HtmlExtractor(path) as extractor:
        number, reading = 0, records(handle)
        while True:
            number += 1
            try:
                record = next(reading)
                if isinstance(record, str):
                    yield BadLine(path, number, record)
                else:
                    yield _document(record, invalid_utf8, extractor)
            except StopIteration:
                break
            except _Empty as reason:
                yield Skipped(path, number, str(reason))
            except PageFailed as reason:
                yield BadLine(path, number, str(reason))
            except DamagedStream as problem:
                yield BadLine(path, number, str(problem))
                reading = records(handle, is_lost=True)
        if number == 1:
            yield Skipped(path, 1, "empty file")


def records(handle: io.BufferedReader, is_lost: bool = False) -> Iterator[Record | str]:
    """Records one by one; for a place that is none, the reason, and on from the next line that begins a record.

    Blocks of records without pages are passed over unread. Raises DamagedStream as `handle` does. is_lost: what comes
    first may be the rest of a record.
    """
    line = _next_version(handle, b" " if is_lost else b"")
    while line:
        if not line.startswith(b"WARC/1."):
            yield "not a WARC record"
            line = _next_version(handle, line)
            continue
        headers = _headers(handle)
        if isinstance(headers, str):
            yield headers
            line = _next_version(handle, b" ")
            continue
        length = headers.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,15}", length):
            yield "WARC record without a length"
            line = _next_version(handle, b" ")
            continue
        left = int(length)
        wanted = headers.get("warc-type", "").lower() in ("response", "conversion") and left <= MAX_PAGE_BYTES
        block = handle.read(left) if wanted else None
        left -= len(block) if block is not None else 0
        while left and (passed := len(handle.read(min(left, 1 << 20)))):
            left -= passed
        yield "WARC record ends early" if left else Record(headers, block)
        line = _next_version(handle, b"")


def _next_version(handle: io.BufferedReader, line: bytes) -> bytes:
    """The next line that is not blank; after a line that is no record, the next one that begins a record."""
    lost = bool(line)
    while line := handle.readline(1 << 16):
        if line.startswith(b"WARC/1.") or not (lost or line.isspace()):
            break
    return line


def _headers(handle: io.BufferedReader) -> dict[str, str] | str:
    headers: dict[str, str] = {}
    left, name = _MAX_HEADER_BYTES, ""
    while (line := handle.readline(left)).strip():
        left -= len(line)
        if left <= 0 or not line.endswith(b"\n"):
            return "WARC record ends early" if left > 0 else f"WARC headers over {human_bytes(_MAX_HEADER_BYTES)}"
        text = line.decode("utf-8", "replace")
        if text[0] in " \t" and name:
            headers[name] += " " + text.strip()
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower()
        headers.setdefault(name, value.strip())
    return headers if line else "WARC record ends early"


class _Empty(Exception):
    """A record rightly gives no document; the message is the reason."""


def _document(record: Record, invalid_utf8: str, extractor: HtmlExtractor) -> Document:
    """Raises _Empty and PageFailed."""
    kind = record.headers.get("warc-type", "").lower()
    if kind not in ("response", "conversion"):
        raise _Empty(f"{kind if kind in _TYPES else 'other'} record")
    if record.block is None:
        raise PageFailed(f"page longer than {human_bytes(MAX_PAGE_BYTES)}")
    if kind == "conversion":
        data, content_type = record.block, record.headers.get("content-type", "text/plain")
        if _media_type(content_type) != "text/plain":
            raise _Empty(f"not plain text: {_media_type(content_type)}")
        if not data.strip():
            raise _Empty("empty page")
        decoded = decode(data, invalid_utf8)
        if isinstance(decoded, str):
            raise PageFailed(decoded)
        text, repaired = decoded
        text = text.replace("\r\n", "\n").strip("\n")
    else:
        data, content_type = _page(record)
        html, repaired = decode_html(data, content_type)
        if repaired and invalid_utf8 == "reject":
            raise PageFailed("bytes outside the character set of the page")
        if repaired and html.count("\ufffd") > max(16, len(html) / 4):
            raise PageFailed("mostly bytes outside the character set of the page")
        text = extractor.text(html)
        if not text:
            raise _Empty("no text in the page")
        repaired = repaired and "\ufffd" in text
    return Document(text, _metadata(record.headers, _media_type(content_type)), repaired)


def _metadata(headers: dict[str, str], content_type: str) -> dict[str, Any]:
    stated = {
        "url": headers.get("warc-target-uri", "").strip("<>"),
        "timestamp": headers.get("warc-date", ""),
        "id": headers.get("warc-record-id", "").strip("<>"),
        "content_type": content_type,
        "identified_language": headers.get("warc-identified-content-language", ""),
        "truncated": headers.get("warc-truncated", ""),
    }
    return {name: value for name, value in stated.items() if value}


def _page(record: Record) -> tuple[bytes, str]:
    """(body, content type) of an HTTP response that is a page."""
    assert record.block is not None
    end = re.search(rb"\r?\n\r?\n", record.block[:_MAX_HEADER_BYTES])
    head = record.block[: end.start() if end else 0].decode("latin-1")
    body = record.block[end.end() if end else 0 :]
    status, *lines = head.splitlines() or [""]
    code = re.match(r"HTTP/[0-9.]+ ([0-9]{3})\b", status)
    if not code:
        raise _Empty("no HTTP response")
    if code[1] != "200":
        raise _Empty(f"HTTP status {code[1]}")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    content_type = fields.get("content-type", "")
    media_type = _media_type(record.headers.get("warc-identified-payload-type", content_type))
    body = _decoded(body, fields)
    if not body.strip():
        raise _Empty("empty page")
    if media_type not in _HTML and not (media_type == "unknown type" and _LOOKS_LIKE_HTML.search(body[:1024])):
        raise _Empty(f"not a page: {media_type}")
    return body, content_type if _media_type(content_type) in _HTML else f"text/html; {content_type}"


def _media_type(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type if re.fullmatch(r"[a-z]{1,20}/[a-z0-9.+-]{1,80}", media_type) else "unknown type"


def _decoded(body: bytes, fields: dict[str, str]) -> bytes:
    """The body without its transfer and content encodings; crawlers that undid them may have left the headers."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    encoding = fields.get("content-encoding", "").strip().lower()
    try:
        if encoding in ("gzip", "x-gzip") and body.startswith(GZIP):
            body = _inflated(body, 31)
        elif encoding == "deflate" and body[:1] and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0:
            body = _inflated(body, 15)
        elif encoding == "zstd" and body.startswith(ZSTANDARD):
            with zstandard.ZstdDecompressor().stream_reader(body) as stream:
                body = stream.read(MAX_PAGE_BYTES + 1)
        elif encoding == "br" and not _LOOKS_LIKE_HTML.search(body[:1024]):
            raise _Empty("content encoding: br")
    except (zlib.error, zstandard.ZstdError) as problem:
        raise PageFailed(f"content encoding is damaged ({problem})") from None
    if len(body) > MAX_PAGE_BYTES:
        raise PageFailed(f"page longer than {human_bytes(MAX_PAGE_BYTES)}")
    return body


def _inflated(body: bytes, window_bits: int) -> bytes:
    """What is there of a body cut short by the crawler is taken, for the record says so itself."""
    return zlib.decompressobj(window_bits).decompress(body, MAX_PAGE_BYTES + 1)


def _unchunked(body: bytes) -> bytes:
    """The chunks joined (RFC 9112, 7.1), as far as they are there; `body` itself when it is not in chunks."""
    pieces: list[bytes] = []
    position = 0
    while position < len(body):
        end = body.find(b"\n", position, position + 1024)
        size = re.fullmatch(rb"([0-9a-fA-F]{1,8})[ \t]*(;.*)?\r?", body[position : max(end, position)])
        if not size:
            return b"".join(pieces) if pieces else body
        length = int(size[1], 16)
        if not length:
            break
        pieces.append(body[end + 1 : end + 1 + length])
        position = end + 1 + length
        position += 2 if body[position : position + 2] == b"\r\n" else 1
    return b"".join(pieces)
