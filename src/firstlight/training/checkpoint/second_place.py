"""A second place for a run, a folder or an object store: after each checkpoint the run is copied there.

    copy_to/NAME/  config.yaml  provenance.json  tokenizer/ …  checkpoints/step_000200/      as in the run folder

Copied back to any machine it is a run that goes on. The manifest of a checkpoint is copied last; without it there is
none. A copy that fails is a warning, and the next checkpoint is copied instead.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firstlight.config import CheckpointConfig
from firstlight.documents.remote import is_remote, remote_store
from firstlight.support.console import note, warn
from firstlight.support.errors import CheckpointError
from firstlight.training.checkpoint.folder import (
    MANIFEST,
    STATE,
    checkpoint_steps,
    is_good,
    kept_steps,
    named_step,
    read_manifest,
    recorded_files,
)

ATTEMPTS = 3
"""A file is tried so often before its checkpoint is given up."""
PAUSE_SECONDS = 2.0
"""Between two of them."""
FOLDERS = ("tokenizer", "origin")
"""What of a run folder's folders a run needs to go on, besides checkpoints."""


class SecondPlace:
    """Copies the run that `checkpoints` belongs to into `config.copy_to`, in a thread that a kill does not wait for."""

    def __init__(self, checkpoints: Path, config: CheckpointConfig) -> None:
        """Raises DataError for an address of a kind that is not known, CheckpointError when another run of this name is
        there, or when a run that has no checkpoint yet does not reach it."""
        assert config.copy_to is not None
        self.run, self.config = checkpoints.absolute().parent, config
        self._store, place = _reach(config.copy_to)
        self._root = f"{place.rstrip('/')}/{self.run.name}"
        self.address = f"{config.copy_to.rstrip('/')}/{self.run.name}"
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._waiting: Path | None = None
        self._copying: Path | None = None
        self._check(checkpoints)

    @property
    def in_use(self) -> set[int]:
        """Steps of the checkpoints that must stay until they are copied."""
        with self._turn:
            steps = (named_step(path.name) for path in (self._waiting, self._copying) if path is not None)
            return {step for step in steps if step is not None}

    def copy(self, path: Path) -> None:
        """Copy a complete checkpoint in the background, after the one that is being copied; of several that wait, the
        newest."""
        with self._turn:
            self._waiting = path
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="second place", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Until nothing is left to copy."""
        thread = self._thread
        if thread is not None:
            note(f"copying the last checkpoint to {self.address} …")
            thread.join()

    def _work(self) -> None:
        while True:
            with self._turn:
                path, self._waiting = self._waiting, None
                self._copying = path
                if path is None:
                    self._thread = None
                    return
            try:
                self._copy(path)
            except Exception as problem:  # each kind of store has its own
                warn(
                    f"{self.address}: {path.name} was not copied there ({_reason(problem)}); "
                    "the next checkpoint is tried again."
                )

    def _copy(self, path: Path) -> None:
        for file in _small_files(self.run):
            self._put(file, str(file.relative_to(self.run)))
        target = f"checkpoints/{path.name}"
        self._forget(target)
        files = [file.path for file in recorded_files(path, read_manifest(path))]
        for file in (*files, path / MANIFEST):
            self._put(file, f"{target}/{file.name}")
        self._prune(int(path.name.rpartition("_")[2]))

    def _put(self, file: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        for attempt in range(ATTEMPTS):
            try:
                self._store.put_file(str(file), target)
                return
            except Exception:
                if attempt == ATTEMPTS - 1 or not file.is_file():
                    raise
                time.sleep(PAUSE_SECONDS)

    def _forget(self, folder: str) -> None:
        """Let an earlier copy not be taken for this one while its files are replaced."""
        with contextlib.suppress(FileNotFoundError):
            self._store.rm_file(f"{self._root}/{folder}/{MANIFEST}")

    def _prune(self, newest: int) -> None:
        """The rule of the first place, for the checkpoints up to `newest`; what is not whole leaves too."""
        there = self._steps()
        whole = sorted(step for step, complete in there.items() if complete and step <= newest)
        kept = kept_steps(whole, self.config, self._is_good)
        for step in there:
            if step <= newest and step not in kept:
                self._forget(f"checkpoints/step_{step:06d}")
                self._store.rm(f"{self._root}/checkpoints/step_{step:06d}", recursive=True)

    def _is_good(self, step: int) -> bool:
        state = json.loads(self._store.cat_file(f"{self._root}/checkpoints/step_{step:06d}/{STATE}"))
        return is_good(state)

    def _steps(self) -> dict[int, bool]:
        """Steps of the checkpoints that are there, and whether they are complete."""
        self._store.invalidate_cache()
        try:
            names = self._store.ls(f"{self._root}/checkpoints", detail=False)
        except FileNotFoundError:
            return {}
        named = {name: named_step(str(name).rstrip("/").rpartition("/")[2]) for name in names}
        return {
            step: self._store.exists(f"{str(name).rstrip('/')}/{MANIFEST}")
            for name, step in named.items()
            if step is not None
        }

    def _check(self, checkpoints: Path) -> None:
        begun = bool(checkpoint_steps(checkpoints))
        try:
            there = [step for step, complete in self._steps().items() if complete]
        except Exception as problem:
            sentence = f"{self.address}: cannot be reached ({_reason(problem)})"
            if not begun:
                raise CheckpointError(f"{sentence}; see checkpoint.copy_to.") from None
            warn(f"{sentence}; training goes on, and the next checkpoint is tried again.")
            return
        if there and not begun:
            raise CheckpointError(
                f"{self.address}: holds a run of this name up to step {max(there)}, and {self.run} has no checkpoint; "
                "copy it back to go on with it, or choose another name=NAME."
            )


def _reach(place: str) -> tuple[Any, str]:
    """The file system of a folder or an address, and the path in it."""
    if is_remote(place) and not place.startswith("file://"):
        return remote_store(place)
    import fsspec

    return fsspec.filesystem("file", auto_mkdir=True), str(Path(place.removeprefix("file://")).absolute())


def _small_files(run: Path) -> Iterator[Path]:
    for entry in sorted(run.iterdir()):
        if entry.is_file() and not entry.name.startswith("."):
            yield entry
        elif entry.name in FOLDERS:
            yield from sorted(file for file in entry.rglob("*") if file.is_file())


def _reason(problem: Exception) -> str:
    return (" ".join(str(problem).split()) or type(problem).__name__)[:200]
