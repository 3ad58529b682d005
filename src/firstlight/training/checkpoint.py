"""Checkpoints: torch.distributed.checkpoint, whole or absent, verified before they are believed.

    checkpoints/step_000200/  __0_0.distcp  .metadata  state.json  manifest.json

Tensors are keyed by fully qualified parameter names, so a checkpoint loads at any layout. The folder is written under
a temporary name; the manifest (sizes and SHA-256 of every file) is written last and the folder renamed into place.
A damaged checkpoint is named, set aside as `damaged_step_…`, and the one before it is used. Reading never runs a
pickle from a file: tensors load with `weights_only`, the metadata through an unpickler that knows only its own types.
"""

from __future__ import annotations

import pickle
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from firstlight.config import CheckpointConfig
from firstlight.support.console import human_bytes, warn
from firstlight.support.errors import CheckpointError, FirstlightError
from firstlight.support.files import atomic_folder, read_json, sha256_file, write_json

FORMAT_VERSION = 1
_NAME = re.compile(r"step_(\d+)")


def checkpoint_folder(folder: Path, step: int) -> Path:
    """`folder/step_000200` for step 200."""
    return folder / f"step_{step:06d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in `folder`, ascending; complete means: has a manifest."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(entry.name), entry) for entry in folder.iterdir())
    return sorted(int(match[1]) for match, entry in found if match and (entry / "manifest.json").is_file())


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: dict[str, Any]) -> Path:
    """Write `tensors` and `state` (JSON) as the checkpoint of `step`; whole or absent. Returns its folder.

    Raises CheckpointError when the disk has no room for it.
    """
    path = checkpoint_folder(folder, step)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 1.05 * size:
        raise CheckpointError(
            f"{path}: a checkpoint needs {human_bytes(size)}, the disk has {human_bytes(free)} free; make room."
        )
    with atomic_folder(path) as temporary:
        with _plainly(f"{path}: the checkpoint could not be written"):
            dcp.save(dict(tensors), storage_writer=FileSystemWriter(temporary), no_dist=True)
        write_json(temporary / "state.json", {"step": step, **state})
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(temporary.iterdir())
        }
        write_json(temporary / "manifest.json", {"format_version": FORMAT_VERSION, "step": step, "files": files})
    return path


def load_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], step: int | None = None) -> dict[str, Any]:
    """Fill `tensors` in place from the newest sound checkpoint in `folder` (or from `step`); returns its state.

    `tensors` may be a part of what was saved (only the model, for evaluation). A damaged checkpoint is set aside with
    a warning and the one before it is used, unless `step` asks for that very one.
    """
    steps = checkpoint_steps(folder)
    if step is not None:
        if step not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{folder}: no complete checkpoint of step {step}; there are: {have}.")
        path = checkpoint_folder(folder, step)
        verify_checkpoint(path)
        return _read(path, tensors)
    for candidate in reversed(steps):
        path = checkpoint_folder(folder, candidate)
        try:
            verify_checkpoint(path)
        except FirstlightError as problem:
            warn(f"{problem} {_set_aside(path)}; the checkpoint before it is used.")
            continue
        return _read(path, tensors)
    raise CheckpointError(f"{folder}: no complete checkpoint to load.")


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest (size, SHA-256); returns the manifest.

    Raises CheckpointError naming the file that is missing, cut short or altered.
    """
    manifest = read_json(path / "manifest.json", "checkpoint manifest")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path / 'manifest.json'}: not a checkpoint manifest.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path / 'manifest.json'}: format version {manifest.get('format_version')}, "
            f"this version of Firstlight reads {FORMAT_VERSION}."
        )
    for name, expected in manifest["files"].items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint.")
        size = file.stat().st_size
        if size != expected.get("bytes"):
            raise CheckpointError(f"{file}: {size} bytes, the manifest says {expected.get('bytes')}.")
        if sha256_file(file) != expected.get("sha256"):
            raise CheckpointError(f"{file}: its content does not match the manifest's SHA-256.")
    return manifest


def prune_checkpoints(folder: Path, config: CheckpointConfig) -> None:
    """Keep the newest `keep_last` and every multiple of `keep_every_steps`; remove the rest and unfinished ones."""
    steps = checkpoint_steps(folder)
    every = config.keep_every_steps
    for leftover in (*folder.glob(".step_*.tmp"), *folder.glob(".step_*.old")):
        shutil.rmtree(leftover, ignore_errors=True)
    for step in steps[: -config.keep_last]:
        if not (every and step % every == 0):
            shutil.rmtree(checkpoint_folder(folder, step), ignore_errors=True)


def _read(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    reader = _Reader(path)
    saved = reader.read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        if name not in saved:
            raise CheckpointError(f"{path}: holds no '{name}'; it is a checkpoint of another model.")
        size = getattr(saved[name], "size", None)
        if size is not None and size != tensor.size():
            raise CheckpointError(
                f"{path}: '{name}' has shape {list(size)}, the model expects {list(tensor.size())}; "
                "it is a checkpoint of another model."
            )
    with _plainly(f"{path}: the checkpoint could not be read"):
        dcp.load(dict(tensors), storage_reader=reader, no_dist=True)
    return read_json(path / "state.json", "checkpoint state")


@contextmanager
def _plainly(what: str) -> Iterator[None]:
    """Torch's checkpointing in one process without its remark about that, and its failures as one sentence.

    CheckpointException, which is no Exception, wraps whatever happens inside, Ctrl-C too.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except (Exception, dcp.CheckpointException) as problem:
            causes = [cause for cause, _ in problem.failures.values()] if hasattr(problem, "failures") else [problem]
            if isinstance(causes[0], KeyboardInterrupt):
                raise KeyboardInterrupt from None
            reason = (str(causes[0]) or type(causes[0]).__name__).splitlines()[0]
            raise CheckpointError(f"{what} ({reason}); is the disk full or damaged?") from problem


def _set_aside(path: Path) -> str:
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


class _Reader(FileSystemReader):
    """FileSystemReader whose metadata goes through a restricted unpickler."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as stream:
            try:
                metadata = _MetadataUnpickler(stream).load()
            except Exception as problem:
                raise CheckpointError(f"{self.path}/.metadata: not readable ({problem}).") from None
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    """Knows the classes that torch's checkpoint metadata consists of, and nothing that can act."""

    _ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("pathlib", "PosixPath"),
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
            ("torch.distributed.checkpoint.metadata", "StorageMeta"),
            ("torch.distributed.checkpoint.metadata", "TensorProperties"),
            ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.distributed.checkpoint.planner", "SavePlan"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which checkpoint metadata never needs")
