"""Files behind `http://` and `https://`: size and version from a first request, bytes from any position by ranges.

Redirects and the proxies of the environment are followed, as the standard library does. A server's word is checked:
a file that changes between two requests is an error, and one that sends everything from the start is read from there.
"""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from typing import Any

from firstlight.documents.remote import Permanent, RemoteFile

TIMEOUT_SECONDS = 60
_SKIPPED_BYTES = 1 << 20
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


def describe(url: str) -> RemoteFile:
    """Size and version of a file on the web. Raises Permanent when it cannot be had."""
    try:
        response = _request(url, method="HEAD")
    except Permanent:  # servers that know no HEAD, addresses signed for GET alone
        response = _request(url)
    with response:
        length = response.headers.get("Content-Length")
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        return RemoteFile(int(length) if length and length.isdigit() and not encoded else None, _version(response))


class WebReader:
    """One response at a time, read on while positions follow each other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._response: Any = None
        self._position = 0
        self._first_version: str | None = None

    def read_at(self, position: int, view: memoryview) -> int:
        try:
            if self._response is None or not 0 <= position - self._position <= _SKIPPED_BYTES:
                self._open(position)
            while self._position < position:
                self._take(len(self._response.read(min(position - self._position, 1 << 16))))
            count: int = self._response.readinto(view)
        except Exception:
            self.close()
            raise
        self._position += count
        return count

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            with contextlib.suppress(Exception):
                response.close()

    def _open(self, position: int) -> None:
        self.close()
        self._response = _request(self._url, start=position)
        partial = self._response.status == 206
        said = self._response.headers.get("Content-Range", "")
        if partial and not said.startswith(f"bytes {position}-"):
            raise Permanent(f"the server was asked for bytes from {position} and sent '{said[:60]}'")
        self._position = position if partial else 0
        version = _version(self._response)
        if self._first_version not in (None, version):
            raise Permanent("changed while it was read; start again")
        self._first_version = version

    def _take(self, count: int) -> None:
        if not count:
            raise ConnectionError("the connection broke off")
        self._position += count


def _request(url: str, method: str = "GET", start: int = 0) -> Any:
    from firstlight import __version__

    headers = {"User-Agent": f"firstlight/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(
            urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as problem:
        problem.close()
        if problem.code in _TRANSIENT:
            raise
        raise Permanent(f"the server answers {problem.code} {problem.reason}") from None
    except ValueError as problem:
        raise Permanent(f"no address ({problem})") from None


def _version(response: Any) -> str:
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
