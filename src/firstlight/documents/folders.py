"""Files below folders and behind globs, in the order of their names; links are followed, every folder entered once.

Python's own `glob` goes round a circle of links for as long as the system lets it, twice as far with every second
link, and passes over what it may not read in silence.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path

_SKIPPED_NAMES = {"__pycache__"}


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, but those whose name, or whose folder's name, begins with a dot."""
    return (path for path, is_folder in _search(folder, ("**",)) if not is_folder)


def matches(pattern: str) -> Iterator[tuple[Path, bool]]:
    """What a glob stands for, and whether that is a folder; `**` descends into folders that are not hidden."""
    path = Path(pattern)
    return _search(Path(path.anchor), path.parts[1:] if path.anchor else path.parts)


def _search(start: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    """What lies below `start` and is called as `parts` say. Raises OSError for a folder that cannot be read.

    A folder is entered once with the same parts ahead, whatever it is called: so circles end, and what has several
    names has the first of them.
    """
    entered: set[tuple[str, int]] = set()
    ahead = [(start, os.path.realpath(start), parts, True)]
    while ahead:
        place, real, parts, is_folder = ahead.pop()
        if not parts:
            yield place, is_folder
            continue
        part, rest = parts[0], parts[1:]
        if not glob.has_magic(part):
            below = place / part
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                below.lstat()
                ahead.append((below, os.path.realpath(below), rest, below.is_dir()))
            continue
        if not is_folder or (real, len(parts)) in entered:
            continue
        entered.add((real, len(parts)))
        found = [(place, real, rest, True)] if part == "**" else []
        for entry in _entries(place):
            if _is_meant(entry.name, part):
                is_folder = _is_folder(entry)
                real_below = os.path.realpath(entry) if entry.is_symlink() else f"{real}/{entry.name}"
                found.append((place / entry.name, real_below, parts if part == "**" and is_folder else rest, is_folder))
        ahead += reversed(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere is found when it is read
        return False


def _is_meant(name: str, part: str) -> bool:
    """Whether one part of a glob stands for a name; a hidden one has to be asked for."""
    if part == "**":
        return not name.startswith(".") and name not in _SKIPPED_NAMES
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
