"""The folders of Megatron-LM's checkpoints: which one holds the newest, whether it can be read, what is wrong with it.

    DIR/  latest_checkpointed_iteration.txt
          iter_0000100/ or release/  .metadata  __0_0.distcp …  common.pt  metadata.json

Source: megatron/training/checkpointing.py of Megatron-LM (get_checkpoint_name, read_metadata, _get_checkpoint_format).
"""

from __future__ import annotations

from pathlib import Path

from firstlight.interop.megatron_checkpoint.pickles import MegatronMetadata
from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import read_json
from firstlight.training.checkpoint import CheckpointTensors

TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
"""What the tracker says of weights without an iteration; also the name of their folder."""
BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""The content of metadata.json."""
DESCRIPTION, METADATA = "metadata.json", ".metadata"
TOKENIZER = "tokenizer"
"""Folder that an export of Firstlight's puts the tokenizer into; Megatron keeps none in a checkpoint."""
LEGACY, ITERATIONS = "mp_rank_*", "iter_*"


def is_megatron_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like Megatron-LM's: by its tracker, or as the folder of one iteration."""
    if not folder.is_dir() or (folder / "config.json").exists():
        return False
    marks = (TRACKER, DESCRIPTION, METADATA)
    return any((folder / mark).exists() for mark in marks) or any(
        next(folder.glob(pattern), None) is not None for pattern in (LEGACY, ITERATIONS)
    )


def checkpoint_folder(source: Path) -> Path:
    """The folder of the checkpoint that `source` is or whose tracker names it, in the format torch_dist.

    DataError, one sentence with the way out, for another format and for what is missing.
    """
    folder = _newest(source)
    if next(folder.glob(LEGACY), None) is not None:
        raise DataError(
            f"{folder}: in Megatron's legacy format (mp_rank_…), whose pieces depend on the layout and are pickles; "
            "start Megatron once with its usual command and --ckpt-convert-format torch_dist --ckpt-convert-save NEW, "
            "then import NEW."
        )
    if not (folder / DESCRIPTION).is_file():
        what = "only .metadata" if (folder / METADATA).is_file() else "neither it nor .metadata"
        raise DataError(
            f"{folder}: holds no {DESCRIPTION} ({what}), so saving it was not finished, or it is of another format; "
            "checkpoints of --ckpt-format torch_dist can be read."
        )
    try:
        description = read_json(folder / DESCRIPTION, "description of a checkpoint")
    except FirstlightError as problem:
        raise DataError(str(problem)) from None
    backend = description.get("sharded_backend") if isinstance(description, dict) else None
    if backend != BACKEND["sharded_backend"]:
        raise DataError(
            f"{folder / DESCRIPTION}: sharded_backend is {backend!r}; torch_dist can be read: load it in Megatron and "
            "save it with --ckpt-format torch_dist."
        )
    return folder


def open_tensors(folder: Path) -> CheckpointTensors:
    """The tensors of a checkpoint, none of which is read yet. DataError or CheckpointError for files that are missing,
    cut short or damaged."""
    if not (folder / METADATA).is_file():
        raise DataError(f"{folder / METADATA}: missing; copy the checkpoint again, with files that begin with a dot.")
    tensors = CheckpointTensors(folder, MegatronMetadata)
    ends: dict[str, int] = {}
    for place in tensors.places:
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    for name, end in ends.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: missing, and {METADATA} names it; copy the checkpoint again.")
        if (size := (folder / name).stat().st_size) < end:
            raise DataError(
                f"{folder / name}: {size:,} bytes, where {METADATA} has tensors up to byte {end:,}; copy it again."
            )
    return tensors


def _newest(source: Path) -> Path:
    tracker = source / TRACKER
    if not tracker.is_file():
        if next(source.glob(ITERATIONS), None) is not None:
            raise DataError(f"{source}: holds no {TRACKER}; give the folder of one iteration, as iter_0000100.")
        return source
    said = tracker.read_text(encoding="utf-8", errors="replace").strip()
    if said != RELEASE and not (said.isascii() and said.isdigit() and len(said) < 16):
        raise DataError(f"{tracker}: says {said[:40]!r}, where the number of an iteration is due, or {RELEASE}.")
    folder = source / (RELEASE if said == RELEASE else f"iter_{int(said):07d}")
    if not folder.is_dir():
        raise DataError(
            f"{tracker}: names {said}, and {folder} is not there; copy it, or give the folder of another iteration."
        )
    return folder
