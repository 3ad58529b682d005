"""What the user names — files, globs, folders, addresses, `hf:` and `starter:` names — as sorted concrete inputs.

Every mistake that can be seen before reading is found here: nothing there, nothing in it, no permission.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from firstlight.documents.folders import files_below, matches
from firstlight.documents.html_text import extractor_version
from firstlight.documents.read import input_kind
from firstlight.documents.remote import expand_remote, is_remote, remote_file
from firstlight.documents.starter import starter_files, starter_version
from firstlight.support.console import note
from firstlight.support.errors import DataError
from firstlight.support.files import fingerprint, read_json


def expand_inputs(patterns: Sequence[str]) -> list[str]:
    """Concrete inputs for `read_documents`, sorted, each once: a file that links give several names, by the first.

    A pattern is a file, a glob (`**` descends; of folders it takes those whose name says what is in them), a folder
    (everything below it but hidden files; a folder saved by `datasets` stands for its Arrow files), an address
    (`s3://…`, `https://…`: see `firstlight.documents.remote`), `hf:NAME[:config][:split]`, or `starter:NAME`.
    Raises DataError when a pattern matches nothing, something that is no regular file, or a file without permission,
    and when all files are empty.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found = _concrete(patterns)
    if not found:
        raise DataError("no inputs: give at least one file, glob, folder, `hf:NAME` or `starter:NAME`.")
    if all(_is_empty(path) for path in found):
        named = ", ".join(map(str, patterns))
        raise DataError(f"{named}: {'empty file' if len(found) == 1 else 'only empty files'}.")
    return found


def input_size(path: str) -> int:
    """Bytes on disk of a concrete input; 0 where that is not known (a dataset on a hub)."""
    if (kind := input_kind(path)) == "hub":
        return 0
    if is_remote(path):
        return remote_file(path).size or 0
    files = starter_files(path) if kind == "starter" else [Path(path)]
    return sum(file.stat().st_size for file in files)


def in_units(paths: Sequence[str], unit_bytes: int) -> list[tuple[tuple[str, ...], int]]:
    """Concrete inputs in order, neighbours taken together until they have `unit_bytes` on disk, and those bytes.

    An input whose size is not known is by itself; empty files go with their neighbours.
    """
    units: list[tuple[tuple[str, ...], int]] = []
    alone = True
    for path in paths:
        size = input_size(path)
        unknown = not size and not _is_empty(path)
        if units and not alone and not unknown and units[-1][1] + size <= unit_bytes:
            units[-1] = (*units[-1][0], path), units[-1][1] + size
        else:
            units.append(((path,), size))
        alone = unknown
    return units


def sources_fingerprint(patterns: Sequence[str], settings: Any = None) -> str:
    """Cheap identity of inputs and settings, to tell whether a stage must be redone: nothing is read.

    Files count by path, size and modification time (ns); remote ones by address, size and what the store calls their
    version; starter text by package and version; a dataset on a hub by its name; web pages also by the version of the
    library that takes the text out of them. `settings` is anything that `json` or pydantic can write.
    """
    if hasattr(settings, "model_dump"):
        settings = settings.model_dump(mode="json")
    return fingerprint([[_identity(path) for path in _concrete(patterns)], settings])


def _identity(path: str) -> list[Any]:
    match input_kind(path):
        case "hub":
            return [path]
        case "starter":
            return [path, starter_version(path), len(starter_files(path))]
        case kind:
            return [*_file_identity(path), *([extractor_version()] if kind == "warc" else [])]


def _file_identity(path: str) -> list[Any]:
    if is_remote(path):
        file = remote_file(path)
        return [path, file.size, file.version]
    status = Path(path).stat()
    return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns]


def _concrete(patterns: Sequence[str]) -> list[str]:
    """What patterns stand for, sorted, and of several names for one file the first."""
    named: dict[str, str] = {}
    for name in sorted(path for pattern in patterns for path in _expand(str(pattern))):
        is_local = not is_remote(name) and input_kind(name) not in ("hub", "starter")
        named.setdefault(os.path.realpath(name) if is_local else name, name)
    return list(named.values())


def _is_empty(path: str) -> bool:
    """Whether it is known to be empty, before it is read."""
    if input_kind(path) in ("hub", "starter"):
        return False
    return remote_file(path).size == 0 if is_remote(path) else Path(path).stat().st_size == 0


def _expand(pattern: str) -> list[str]:
    if pattern.startswith("starter:"):
        starter_files(pattern)
        return [pattern]
    if input_kind(pattern) == "hub":
        if not pattern.removeprefix("hf:").split(":")[0] or pattern.count(":") > 3:
            raise DataError(f"'{pattern}': write hf:NAME, hf:NAME:config or hf:NAME:config:split.")
        return [pattern]
    if pattern.startswith("file://"):
        try:
            pattern = url2pathname(urlsplit(pattern).path)
        except ValueError as problem:
            raise DataError(f"{pattern}: no address of a file ({problem}).") from None
    if is_remote(pattern):
        return expand_remote(pattern)
    if not pattern.strip():
        raise DataError("the name of an input is empty; write '.' for this folder.")
    try:
        return _expand_local(pattern)
    except OSError as problem:
        raise DataError(f"{problem.filename or pattern[:200]}: cannot be read ({problem.strerror}).") from None


def _expand_local(pattern: str) -> list[str]:
    try:
        path = Path(pattern).expanduser()
    except RuntimeError:
        raise DataError(f"{pattern}: no such user.") from None
    if path.is_dir():
        return _expand_folder(path)
    if path.exists():
        return _check_files([path])
    if not glob.has_magic(pattern):
        raise DataError(f"{pattern}: no such file or folder.")
    files: list[Path] = []
    for match, is_folder in matches(str(path)):
        if not is_folder:
            files.append(match)
        elif input_kind(match.name) != "text":
            files += files_below(match)
    if not files:
        raise DataError(f"{pattern}: matches no file.")
    return _check_files(files)


def _expand_folder(folder: Path) -> list[str]:
    if (folder / "dataset_dict.json").is_file():
        splits = _names_in(folder / "dataset_dict.json", "splits")
        if "train" not in splits and len(splits) != 1:
            raise DataError(f"{folder}: name one split of this Hugging Face dataset: {', '.join(splits) or 'none'}.")
        split = "train" if "train" in splits else splits[0]
        if len(splits) > 1:
            note(f"{folder}: reading split '{split}' of {', '.join(splits)}.")
        folder = folder / split
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        files = [folder / name for name in _names_in(folder / "state.json", "_data_files")]
        for file in files:
            if not file.is_file():
                raise DataError(f"{folder}: state.json names {file.name}, which is missing.")
    else:
        files = list(files_below(folder))
    if not files:
        raise DataError(f"{folder}: a folder without files.")
    return _check_files(files)


def _names_in(description: Path, field: str) -> list[str]:
    """The splits or files that a description of a saved dataset lists."""
    described = read_json(description, "Hugging Face dataset")
    listed = described.get(field) if isinstance(described, dict) else None
    names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in listed or ()]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{description}: no description of a Hugging Face dataset (its '{field}' is no list of names).")
    return [str(name) for name in names]


def _check_files(files: list[Path]) -> list[str]:
    for file in files:
        if not file.exists():
            raise DataError(f"{file}: a link that leads nowhere.")
        if not file.is_file():
            raise DataError(f"{file}: not a regular file.")
        if not os.access(file, os.R_OK):
            raise DataError(f"{file}: no permission to read it.")
    return [str(file) for file in files]
