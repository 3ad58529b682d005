"""Files in object stores and on the web: what is there, and their bytes, read again where a connection breaks off.

Object stores are read through fsspec, with the credentials that its packages find in the environment; the web through
the standard library, for fsspec's own reader takes a broken connection for the end of the file. No file is copied to
the disk.
"""

from __future__ import annotations

import contextlib
import glob
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from firstlight.support.errors import DataError, FirstlightError, did_you_mean
from firstlight.support.secrets import holds_password

WEB = ("http", "https")
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "oss": "ossfs",
    "hf": "huggingface_hub",
    "memory": "fsspec",
}
"""Package behind each kind of object store."""

ATTEMPTS = 5
"""A request or read is tried so often before it is given up."""
FIRST_PAUSE_SECONDS = 1.0
"""Between the first and the second attempt; each later pause is twice as long."""
_KEPT_SECONDS = 300


class Permanent(Exception):
    """A failure that another attempt would meet again; the message is the reason."""


@dataclass(frozen=True)
class RemoteFile:
    """What a store says about a file."""

    size: int | None
    """Bytes; None where the server does not say."""
    version: str
    """Changes when the file does: entity tag, checksum or time of modification."""


class Reader(Protocol):
    """Random access to a remote file; any exception but Permanent is worth another attempt."""

    def read_at(self, position: int, view: memoryview) -> int:
        """Fill `view`, or less; 0 at the end."""

    def close(self) -> None: ...


def is_remote(path: str) -> bool:
    """True for an address such as `s3://bucket/file`."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path) is not None


def expand_remote(pattern: str) -> list[str]:
    """Addresses of the files that a remote file, folder or glob stands for, sorted; empty files among them.

    Names that start with a dot are left out, as they are in local folders. Raises DataError when nothing is there, and
    for an address with a password, which would be kept in provenance and logs.
    """
    if holds_password(pattern):
        raise DataError(
            f"{pattern}: an address with a password in it; put the password where the store's package looks for it "
            "(as AWS_SECRET_ACCESS_KEY in the environment), and write the address without it."
        )
    if _scheme(pattern) in WEB:
        remote_file(pattern)
        return [pattern]
    store, path = remote_store(pattern)
    found: dict[str, RemoteFile] = {}
    with _asking(pattern):
        listed: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            about = _attempt(pattern, store.info, path)
            if about["type"] == "file":
                listed = {about["name"]: about}
        if not listed:
            store.invalidate_cache()
            list_files = store.glob if glob.has_magic(path) else store.find
            listed = _attempt(pattern, list_files, path, detail=True)
            root = PurePosixPath(path)
            if list_files == store.find:
                listed = {name: about for name, about in listed.items() if not _hidden(name, root)}
        for name, about in listed.items():
            if about["type"] == "file":
                found[f"{_scheme(pattern)}://{name.lstrip('/')}"] = _described(about)
    if not found:
        what = "matches no file" if glob.has_magic(path) else "no such file or folder"
        raise DataError(f"{pattern}: {what}.")
    now = time.monotonic()
    _known.update({url: (now, file) for url, file in found.items()})
    return sorted(found)


def remote_file(url: str) -> RemoteFile:
    """Size and version of one remote file, as seen in the last minutes. Raises DataError when it is not there."""
    seen, file = _known.get(url, (0.0, None))
    if file is None or time.monotonic() - seen > _KEPT_SECONDS:
        if _scheme(url) in WEB:
            from firstlight.documents.web import describe

            file = _attempt(url, describe, url)
        else:
            store, path = remote_store(url)
            with _asking(url):
                file = _described(_attempt(url, store.info, path))
        _known[url] = time.monotonic(), file
    return file


def open_remote(url: str) -> RemoteBytes:
    """The bytes of a remote file, which can be sought in. Raises DataError when it is not there."""
    file = remote_file(url)
    if _scheme(url) in WEB:
        from firstlight.documents.web import WebReader

        return RemoteBytes(url, file.size, WebReader(url))
    store, path = remote_store(url)
    return RemoteBytes(url, file.size, _StoreReader(store, path))


class RemoteBytes(io.RawIOBase):
    """A remote file; a read that fails is tried again from where it stopped, ATTEMPTS times.

    Raises DataError when it fails every time, or ends before the size that the store gave.
    """

    def __init__(self, url: str, size: int | None, reader: Reader) -> None:
        self._url, self._size, self._reader = url, size, reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size is not None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            with _asking(self._url):
                count = _attempt(self._url, self._read, view[done:])
            if not count:
                break
            done += count
            self._position += count
        return done

    def _read(self, view: memoryview) -> int:
        if self._size is not None:
            view = view[: max(0, self._size - self._position)]
            if not view:
                return 0
        count = self._reader.read_at(self._position, view)
        if not count and self._size is not None:
            self._reader.close()
            raise ConnectionError("the connection broke off")
        return count

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


class _StoreReader:
    """A file of an fsspec store, opened when it is first read."""

    def __init__(self, store: Any, path: str) -> None:
        self._store, self._path = store, path
        self._file: Any = None

    def read_at(self, position: int, view: memoryview) -> int:
        try:
            if self._file is None:
                self._file = self._store.open(self._path, "rb")
            if self._file.tell() != position:
                self._file.seek(position)
            data = self._file.read(len(view))
        except Exception:
            self.close()
            raise
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(Exception):
                file.close()


_VERSIONS = ("etag", "ETag", "md5Hash", "content_md5", "generation", "last_modified", "LastModified", "mtime")
_known: dict[str, tuple[float, RemoteFile]] = {}


def _scheme(url: str) -> str:
    return url.split("://", 1)[0].lower()


def remote_store(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address that is not on the web, and the path in it. DataError when there is none."""
    scheme = _scheme(url)
    if scheme not in PACKAGES or "::" in url:
        known = [*PACKAGES, *WEB, "file"]
        raise DataError(f"'{url[:200]}': no known kind of address.{did_you_mean(scheme, known)}")
    try:
        import fsspec

        store, path = fsspec.core.url_to_fs(url)
    except ImportError:
        package = PACKAGES[scheme]
        raise DataError(f"{url}: needs the `{package}` package; pip install {package}.") from None
    except Exception as problem:
        raise DataError(f"{url}: cannot be reached ({_reason(problem)}).") from None
    return store, path


def _described(about: dict[str, Any]) -> RemoteFile:
    version = next((f"{name} {about[name]}" for name in _VERSIONS if about.get(name)), "")
    return RemoteFile(about.get("size"), version)


def _hidden(name: str, root: PurePosixPath) -> bool:
    path = PurePosixPath(name)
    inside = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-1:]
    return any(part.startswith(".") or part == "__pycache__" for part in inside)


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{url}: no such file or folder.") from None


def _attempt(url: str, act: Any, *arguments: Any, **options: Any) -> Any:
    """`act(*arguments)`, several times while it fails. Raises DataError at last; FileNotFoundError at once."""
    for attempt in range(ATTEMPTS):
        try:
            return act(*arguments, **options)
        except (FileNotFoundError, FirstlightError):
            raise
        except PermissionError as problem:
            raise DataError(f"{url}: no permission to read it ({_reason(problem)}).") from None
        except Permanent as problem:
            raise DataError(f"{url}: {problem}.") from None
        except Exception as problem:
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"{url}: cannot be read ({_reason(problem)}), tried {ATTEMPTS} times; start again when the "
                    "connection is better."
                ) from None
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise AssertionError("no attempt")


def _reason(problem: Exception) -> str:
    return (" ".join(str(problem).split()) or type(problem).__name__)[:200]
