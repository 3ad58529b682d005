"""Folders that workers leave whole or not at all, whoever else is at the same work and whenever they are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from firstlight.support.files import fsync_file, fsync_folder, naming


@contextlib.contextmanager
def finished_folder(folder: Path, last: str) -> Iterator[Path]:
    """Yield an empty folder under a name that no other process uses; at the end of the block it becomes `folder`.

    `last` is the file that the block writes last. Where another process was faster, its folder stays: both hold the
    same. Files are on the disk before the name is. On an exception the folder is removed, and an OSError names
    `folder`; a kill leaves it, and `remove_unfinished` removes it.
    """
    attempt = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(attempt, ignore_errors=True)
    attempt.mkdir(parents=True)
    try:
        with naming(folder, attempt):
            yield attempt
            for file in attempt.iterdir():
                fsync_file(file)
            try:
                attempt.rename(folder)
            except OSError:
                if not (folder / last).is_file():
                    raise
            fsync_folder(folder.parent)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def remove_unfinished(place: Path) -> None:
    """Remove the folders in `place` that killed processes did not finish."""
    for entry in place.iterdir():
        if entry.name.startswith(".") and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
