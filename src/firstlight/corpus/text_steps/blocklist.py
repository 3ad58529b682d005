"""Documents whose host, URL or text stands in a list are dropped.

Lists of hosts have millions of lines (UT1's has 4.6 million adult sites), so that an entry is kept as 64 bits of its
BLAKE2b hash in a sorted array: 8 bytes each, and a chance of 10^-12 that a document meets a wrong one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from firstlight.config.text_steps import Blocklist
from firstlight.corpus.step import Block, Result
from firstlight.documents import expand_inputs
from firstlight.documents.compression import DamagedStream
from firstlight.documents.streams import open_bytes
from firstlight.support.errors import DataError

BLOCKED_HOST = "blocked host"
BLOCKED_URL = "blocked URL"
BLOCKED_WORD = "blocked word in URL"
BLOCKED_TEXT = "blocked text"
_HOST = re.compile(r"[^\s/:@#?]+\.?\Z")
_HASH = re.compile("[0-9a-f]{32}(?:[0-9a-f]{32})?")


class BlocklistStep:
    """The lists, loaded once."""

    def __init__(self, config: Blocklist) -> None:
        """DataError with file and line where a list cannot be read."""
        self.config = config
        hosts, urls = read_urls(config.urls)
        self._hosts, self._urls = _Entries(hosts), _Entries(urls)
        self._sha256, self._md5 = read_hashes(config.hashes)
        words = "|".join(re.escape(word.lower()) for word in config.words_in_url)
        self._words = re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])") if words else None
        self._by_url = bool(config.urls or config.words_in_url)

    def apply(self, block: Block) -> Result:
        """Reasons "blocked host", "blocked URL", "blocked word in URL", "blocked text"; counts "without URL"."""
        reasons, counts = [], Counter[str]()
        for text, about in zip(block.texts, block.metadata, strict=True):
            url = about.get(self.config.url_field)
            reason = None
            if self._by_url:
                if isinstance(url, str) and url.strip():
                    reason = self._judge_url(url.strip())
                else:
                    counts["without URL"] += 1
            reasons.append(reason or self._judge_text(text))
        return Result(reasons, counts=counts)

    def _judge_url(self, url: str) -> str | None:
        host, whole = parts_of(url)
        labels = host.split(".")
        if any(".".join(labels[start:]) in self._hosts for start in range(len(labels))):
            return BLOCKED_HOST
        if whole in self._urls:
            return BLOCKED_URL
        return BLOCKED_WORD if self._words and self._words.search(url.lower()) else None

    def _judge_text(self, text: str) -> str | None:
        if not (self._sha256 or self._md5):
            return None
        data = text.encode("utf-8", "surrogatepass")
        if self._sha256 and hashlib.sha256(data).digest() in self._sha256:
            return BLOCKED_TEXT
        if self._md5 and hashlib.md5(data, usedforsecurity=False).digest() in self._md5:
            return BLOCKED_TEXT
        return None


class _Entries:
    """A set of strings as sorted 64-bit hashes."""

    def __init__(self, entries: Iterator[str] | Sequence[str]) -> None:
        self._hashes: NDArray[np.uint64] = np.unique(np.fromiter(map(_hash, entries), dtype=np.uint64))

    def __contains__(self, entry: str) -> bool:
        value = np.uint64(_hash(entry))
        place = int(np.searchsorted(self._hashes, value))
        return place < len(self._hashes) and bool(self._hashes[place] == value)


def _hash(entry: str) -> int:
    return int.from_bytes(hashlib.blake2b(entry.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def parts_of(url: str) -> tuple[str, str]:
    """Host of a URL (in lower case), and the URL as it is compared: without scheme, port, fragment and last slash."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return "", url
    query = f"?{parts.query}" if parts.query else ""
    return host, f"{host}{parts.path.rstrip('/')}{query}"


def read_urls(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hosts and URLs of lists with one of either a line."""
    hosts: list[str] = []
    urls: list[str] = []
    for file, number, line in _lines(files):
        host, whole = parts_of(line)
        if not host or len(line.split()) != 1 or not _HOST.match(host):
            raise DataError(
                f"{file}, line {number}: '{line[:80]}' is no host (as example.com) and no URL; one a line is due."
            )
        if whole == host:
            hosts.append(host)
        else:
            urls.append(whole)
    return hosts, urls


def read_hashes(files: Sequence[str]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """SHA-256 and MD5 hashes of lists with one of either a line."""
    sha256: set[bytes] = set()
    md5: set[bytes] = set()
    for file, number, line in _lines(files):
        if not _HASH.fullmatch(line.lower()):
            raise DataError(
                f"{file}, line {number}: '{line[:80]}' is no hash; 64 hex digits (SHA-256) or 32 (MD5) are due."
            )
        (sha256 if len(line) == 64 else md5).add(bytes.fromhex(line))
    return frozenset(sha256), frozenset(md5)


def _lines(patterns: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """File, number and content of every line that holds something; comments (`#` at the start or after a space) cut."""
    try:
        files = expand_inputs(patterns) if patterns else []
    except DataError as problem:
        raise DataError(f"blocklist: {problem}") from None
    for file in files:
        number = 0
        try:
            with open_bytes(file) as handle:
                for number, data in enumerate(handle, 1):
                    try:
                        line = data.decode("utf-8").removeprefix("\ufeff")
                    except UnicodeDecodeError:
                        raise DataError(f"{file}, line {number}: not UTF-8; save the list as UTF-8 text.") from None
                    line = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
                    if line:
                        yield file, number, line
        except DamagedStream as problem:
            raise DataError(f"{file}: after line {number} the compressed list is damaged ({problem}).") from None
        except OSError as problem:
            raise DataError(f"{file}: cannot be read ({problem.strerror}); a list has one entry a line.") from None
