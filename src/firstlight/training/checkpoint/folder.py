"""The folder of checkpoints: which are there, which are sound, which are good to go back to, which are kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.config import CheckpointConfig
from firstlight.support.errors import CheckpointError, FirstlightError
from firstlight.support.files import read_json, sha256_file
from firstlight.support.recorded import RecordedFile

FORMAT_VERSION = 1
MANIFEST, STATE = "manifest.json", "state.json"
_NAME = re.compile(r"step_(\d+)")


def checkpoint_folder(folder: Path, step: int) -> Path:
    """`folder/step_000200` for step 200."""
    return folder / f"step_{step:06d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in `folder`, ascending; complete means: has a manifest."""
    if not folder.is_dir():
        return []
    return sorted(step for entry in folder.iterdir() if (step := step_of(entry)) is not None)


def step_of(path: Path) -> int | None:
    """The step of a folder that is a complete checkpoint: by its name, and it has a manifest."""
    step = named_step(path.name)
    return step if step is not None and (path / MANIFEST).is_file() else None


def named_step(name: str) -> int | None:
    """200 for `step_000200`; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def last_good_step(folder: Path) -> int | None:
    """Step of the newest complete checkpoint that training may go back to; None: there is none.

    Its state does not say `good: false`, as it does where steps were being skipped, nor `weights_only`.
    """
    steps = reversed(checkpoint_steps(folder))
    return next((step for step in steps if _is_good(checkpoint_folder(folder, step))), None)


def _is_good(path: Path) -> bool:
    try:
        return is_good(read_state(path))
    except (FirstlightError, OSError):
        return False


def is_good(state: Mapping[str, Any]) -> bool:
    """Whether training may go back to a checkpoint of this state."""
    return bool(state.get("good", True)) and not state.get("weights_only")


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint: {"step": int, …}."""
    state = read_json(path / STATE, "checkpoint state")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path / STATE}: not a checkpoint state (it names no step).")
    return state


def verify_checkpoint(path: Path, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Check the files of a checkpoint against its manifest (size, SHA-256); returns the manifest.

    part, parts: check only every `parts`-th file from number `part` on, to share the work. Raises CheckpointError
    naming the file that is missing, cut short or altered.
    """
    manifest = read_manifest(path)
    for file in recorded_files(path, manifest)[part::parts]:
        if fault := file.fault():
            raise CheckpointError(fault)
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: {"format_version", "step", "files": {name: {"bytes", "sha256"}}}."""
    manifest = read_json(path / MANIFEST, "checkpoint manifest")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path / MANIFEST}: not a checkpoint manifest.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path / MANIFEST}: format version {manifest.get('format_version')}, "
            f"this version of Firstlight reads {FORMAT_VERSION}."
        )
    for name, facts in manifest["files"].items():
        if Path(name).name != name or not isinstance(facts, dict):
            raise CheckpointError(f"{path / MANIFEST}: {name!r} is not a file of this checkpoint.")
    return manifest


def recorded_files(path: Path, manifest: Mapping[str, Any]) -> list[RecordedFile]:
    """The files that a manifest names, by name."""
    return [
        RecordedFile(path / name, facts.get("bytes"), facts.get("sha256"), MANIFEST)
        for name, facts in sorted(manifest["files"].items())
    ]


def manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of manifest.json. files: {name: {"bytes", "sha256"}}."""
    return {"format_version": FORMAT_VERSION, "step": step, "files": dict(sorted(files.items()))}


def describe_file(file: Path) -> dict[str, Any]:
    """What the manifest says about a file."""
    return {"bytes": file.stat().st_size, "sha256": sha256_file(file)}


def prune_checkpoints(folder: Path, config: CheckpointConfig, spare: Collection[int] = ()) -> None:
    """Keep what `kept_steps` names and the steps of `spare`; remove the rest."""
    steps = checkpoint_steps(folder)
    kept = kept_steps(steps, config, lambda step: _is_good(checkpoint_folder(folder, step)))
    for step in set(steps) - kept - set(spare):
        shutil.rmtree(checkpoint_folder(folder, step), ignore_errors=True)


def kept_steps(steps: Sequence[int], config: CheckpointConfig, is_good: Callable[[int], bool]) -> set[int]:
    """Of ascending `steps` the newest `keep_last`, every multiple of `keep_every_steps`, and the newest good one."""
    every = config.keep_every_steps
    kept = set(steps[-config.keep_last :]) | {step for step in steps if every and step % every == 0}
    return kept | set(next(([step] for step in reversed(steps) if is_good(step)), []))


def remove_leftovers(folder: Path) -> None:
    """Remove what saves that were killed left behind; a checkpoint that was about to be replaced takes its place again.

    Only for a moment when nobody writes into `folder`.
    """
    for replaced in folder.glob(".step_*.old"):
        path = folder / replaced.name[1 : -len(".old")]
        if not path.exists():
            replaced.rename(path)
    for leftover in (*folder.glob(".step_*.tmp"), *folder.glob(".step_*.old")):
        shutil.rmtree(leftover, ignore_errors=True)


def set_aside_after(folder: Path, step: int) -> None:
    """Rename the checkpoints after `step`, which a run that goes back to it has given up, to `abandoned_step_…`."""
    for later in checkpoint_steps(folder):
        if later > step:
            set_aside(checkpoint_folder(folder, later), "abandoned")


def set_aside(path: Path, why: str = "damaged") -> str:
    """Rename a checkpoint, where that is allowed, to `damaged_step_…`; returns what was done, for the warning."""
    aside = path.with_name(f"{why}_{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{why}_{path.name}_{number}")
    try:
        path.rename(aside)
    except OSError as problem:
        return f"It cannot be renamed ({problem.strerror})"
    return f"Set aside as {aside.name}"
