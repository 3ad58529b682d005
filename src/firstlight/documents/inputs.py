"""What the user names — files, globs, folders, `hf:` and `starter:` names — as a sorted list of concrete inputs.

Every mistake that can be seen before reading is found here: nothing there, nothing in it, no permission.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from firstlight.documents.read import input_kind
from firstlight.documents.starter import starter_files, starter_version
from firstlight.support.console import note
from firstlight.support.errors import DataError
from firstlight.support.files import fingerprint, read_json

_SKIPPED_NAMES = {"__pycache__"}


def expand_inputs(patterns: Sequence[str]) -> list[str]:
    """Concrete inputs for `read_documents`, sorted, each once.

    A pattern is a file, a glob (`**` descends), a folder (everything below it but hidden files; a folder saved by
    `datasets` stands for its Arrow files), `hf:NAME[:config][:split]`, or `starter:NAME`. Raises DataError when a
    pattern matches nothing, only empty files, something that is no regular file, or a file without permission.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found: set[str] = set()
    for pattern in patterns:
        found.update(_expand(str(pattern)))
    if not found:
        raise DataError("no inputs: give at least one file, glob, folder, `hf:NAME` or `starter:NAME`.")
    return sorted(found)


def input_size(path: str) -> int:
    """Bytes on disk of a concrete input; 0 where that is not known (a dataset on a hub)."""
    if (kind := input_kind(path)) == "hub":
        return 0
    files = starter_files(path) if kind == "starter" else [Path(path)]
    return sum(file.stat().st_size for file in files)


def sources_fingerprint(patterns: Sequence[str], settings: Any = None) -> str:
    """Cheap identity of inputs and settings, to tell whether a stage must be redone: nothing is read.

    Files count by path, size and modification time (ns); starter text by package and version; a dataset on a hub by
    its name. `settings` is anything that `json` or pydantic can write.
    """
    if hasattr(settings, "model_dump"):
        settings = settings.model_dump(mode="json")
    return fingerprint([[_identity(path) for path in expand_inputs(patterns)], settings])


def _identity(path: str) -> list[Any]:
    match input_kind(path):
        case "hub":
            return [path]
        case "starter":
            return [path, starter_version(path), len(starter_files(path))]
        case _:
            status = Path(path).stat()
            return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns]


def _expand(pattern: str) -> list[str]:
    if pattern.startswith("starter:"):
        starter_files(pattern)
        return [pattern]
    if pattern.startswith("hf:"):
        if not pattern.removeprefix("hf:").split(":")[0] or pattern.count(":") > 3:
            raise DataError(f"'{pattern}': write hf:NAME, hf:NAME:config or hf:NAME:config:split.")
        return [pattern]
    if "://" in pattern:
        raise DataError(f"'{pattern}': remote files are not read; download them, or name a dataset as hf:NAME.")
    path = Path(pattern).expanduser()
    try:
        if path.is_dir():
            return _expand_folder(path)
        if path.exists():
            return _check_files(pattern, [path], "empty file")
    except OSError as problem:
        raise DataError(f"{pattern[:200]}: cannot be read ({problem.strerror}).") from None
    if not glob.has_magic(pattern):
        raise DataError(f"{pattern}: no such file or folder.")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (absolute patterns)
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise DataError(f"{pattern}: matches no file.")
    return _check_files(pattern, files, "matches only empty files")


def _expand_folder(folder: Path) -> list[str]:
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json", "Hugging Face dataset").get("splits", [])
        if "train" not in splits and len(splits) != 1:
            raise DataError(f"{folder}: name one split of this Hugging Face dataset: {', '.join(splits) or 'none'}.")
        split = "train" if "train" in splits else splits[0]
        if len(splits) > 1:
            note(f"{folder}: reading split '{split}' of {', '.join(splits)}.")
        folder = folder / split
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        saved = read_json(folder / "state.json", "Hugging Face dataset").get("_data_files", [])
        files = [folder / entry["filename"] for entry in saved]
        for file in files:
            if not file.is_file():
                raise DataError(f"{folder}: state.json names {file.name}, which is missing.")
    else:
        files = sorted(_walk(folder))
    if not files:
        raise DataError(f"{folder}: a folder without files.")
    return _check_files(str(folder), files, "holds only empty files")


def _walk(folder: Path) -> Iterator[Path]:
    def stop(problem: OSError) -> None:
        raise DataError(f"{problem.filename}: cannot be read ({problem.strerror}).") from None

    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_NAMES]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _check_files(pattern: str, files: list[Path], when_empty: str) -> list[str]:
    for file in files:
        if not file.exists():
            raise DataError(f"{file}: a link that leads nowhere.")
        if not file.is_file():
            raise DataError(f"{file}: not a regular file.")
        if not os.access(file, os.R_OK):
            raise DataError(f"{file}: no permission to read it.")
    if not any(file.stat().st_size for file in files):
        raise DataError(f"{pattern}: {when_empty}.")
    return [str(file) for file in files]
