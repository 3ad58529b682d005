"""Files that are whole or absent: atomic writes, folders renamed into place, fingerprints, locks.

A kill at any moment leaves either the old state or the new one, plus temporary names that start with a dot and
are removed by the next writer of the same path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from firstlight.support.errors import FirstlightError


def fingerprint(value: Any) -> str:
    """Hex SHA-256 of `value` as canonical JSON (sorted keys, no spaces). Paths are written as text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks; `advance` is told how many at a time."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(block):
            digest.update(block[:count])
            if advance:
                advance(count)
    return digest.hexdigest()


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make what was written into a file durable."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def make_folder(path: Path) -> None:
    """Make `path` and its parents, where they are not there yet. NotADirectoryError names the file in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        _nearest_folder(path)
        raise


def check_writable(path: Path) -> None:
    """OSError when `path` could not be made or replaced; long work asks before it begins."""
    folder = _nearest_folder(Path(path).parent)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission to write in this folder", str(folder))


def _nearest_folder(path: Path) -> Path:
    """`path`, or the nearest of its parents that exists. NotADirectoryError when that is a file."""
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file, where a folder is due", str(nearest))
    return nearest


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError in the block name `path`: one of a full disk names no file, another may name a temporary one."""
    try:
        yield
    except OSError as problem:
        named = Path(os.fsdecode(problem.filename)) if isinstance(problem.filename, (str, bytes)) else None
        if named is None or temporary in (named, *named.parents):
            problem.filename = str(path)
        raise


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path` for writing; on success it is synced and renamed to `path`.

    On any exception the temporary file is removed and `path` is as it was.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    encoding = None if "b" in mode else "utf-8"
    try:
        with naming(path, temporary):
            with temporary.open(mode, encoding=encoding) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that can be written as UTF-8, also when it holds the name of a file that is not valid UTF-8."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path, "w") as handle:
        handle.write(to_json(value, indent=2) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; `what` names it in the error ("dataset description", …)."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FirstlightError(f"{path}: no such {what}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise FirstlightError(f"{path}: not a readable {what} (invalid JSON: {problem}).") from None


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a fresh temporary sibling folder; on success it takes the name `path`, replacing what was there.

    On any exception the temporary folder is removed and `path` is as it was.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path, temporary):
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir()
            yield temporary
            publish_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync a finished folder and rename it to `path`, replacing what was there."""
    for file in temporary.rglob("*"):
        if file.is_file():
            fsync_file(file)
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        if old.exists():
            shutil.rmtree(old)
        path.rename(old)
    temporary.rename(path)
    fsync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `folder`; a second holder gets one sentence. Released by any kind of death.

    The folder is made when it is not there, and removed at the end when nothing was put into it.
    """
    file = folder / ".lock"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    handle = _locked(file, what)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_same(handle, file):
                file.unlink()
            for place in made:
                place.rmdir()
        handle.close()


def in_use(folder: Path) -> bool:
    """Whether a process, on this machine or one that shares the folder's file system, holds `folder_lock` of it."""
    try:
        with (folder / ".lock").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as problem:
        return problem.errno in (errno.EAGAIN, errno.EACCES)
    return False


def _locked(file: Path, what: str) -> IO[bytes]:
    """The lock file, open and locked; the one that is there, not one that its last holder has just removed."""
    while True:
        make_folder(file.parent)
        try:
            handle = file.open("a+b", buffering=0)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(handle, file):
                return handle
        except OSError as problem:
            handle.seek(0)
            holder = handle.read().decode("utf-8", "replace").strip() or "another process"
            handle.close()
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                problem.filename = str(file)
                raise
            raise FirstlightError(
                f"{file.parent}: {what} is in use by {holder}; wait for it, stop it, or choose another name."
            ) from None
        handle.close()


def _is_same(handle: IO[bytes], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False
