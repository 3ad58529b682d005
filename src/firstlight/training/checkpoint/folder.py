"""The folder of checkpoints: which are there, which are sound, which are kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstlight.config import CheckpointConfig
from firstlight.support.errors import CheckpointError
from firstlight.support.files import read_json, sha256_file

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
    found = ((_NAME.fullmatch(entry.name), entry) for entry in folder.iterdir())
    return sorted(int(match[1]) for match, entry in found if match and (entry / MANIFEST).is_file())


def verify_checkpoint(path: Path, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Check the files of a checkpoint against its manifest (size, SHA-256); returns the manifest.

    part, parts: check only every `parts`-th file from number `part` on, to share the work. Raises CheckpointError
    naming the file that is missing, cut short or altered.
    """
    manifest = read_json(path / MANIFEST, "checkpoint manifest")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path / MANIFEST}: not a checkpoint manifest.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path / MANIFEST}: format version {manifest.get('format_version')}, "
            f"this version of Firstlight reads {FORMAT_VERSION}."
        )
    for name, expected in sorted(manifest["files"].items())[part::parts]:
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint.")
        size = file.stat().st_size
        if size != expected.get("bytes"):
            raise CheckpointError(f"{file}: {size} bytes, the manifest says {expected.get('bytes')}.")
        if sha256_file(file) != expected.get("sha256"):
            raise CheckpointError(f"{file}: its content does not match the manifest's SHA-256.")
    return manifest


def manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of manifest.json. files: {name: {"bytes", "sha256"}}."""
    return {"format_version": FORMAT_VERSION, "step": step, "files": dict(sorted(files.items()))}


def describe_file(file: Path) -> dict[str, Any]:
    """What the manifest says about a file."""
    return {"bytes": file.stat().st_size, "sha256": sha256_file(file)}


def prune_checkpoints(folder: Path, config: CheckpointConfig) -> None:
    """Keep the newest `keep_last` and every multiple of `keep_every_steps`; remove the rest."""
    steps = checkpoint_steps(folder)
    every = config.keep_every_steps
    for step in steps[: -config.keep_last]:
        if not (every and step % every == 0):
            shutil.rmtree(checkpoint_folder(folder, step), ignore_errors=True)


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


def set_aside(path: Path) -> str:
    """Rename a damaged checkpoint, where that is allowed; returns what was done, for the warning."""
    aside = path.with_name(f"damaged_{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"damaged_{path.name}_{number}")
    try:
        path.rename(aside)
    except OSError as problem:
        return f"It cannot be renamed ({problem.strerror})"
    return f"Set aside as {aside.name}"
