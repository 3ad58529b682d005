"""Whether the disk has room for checkpoints: asked at the start of a run and before every save.

A quota of the user or of a folder cannot be seen from here; a save that meets one fails, is told and tried again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.planning.flops import parameter_count
from firstlight.support.console import human_bytes, warn
from firstlight.training.checkpoint.folder import checkpoint_steps

BYTES_PER_PARAMETER = 12
"""fp32 weights and the two moments of AdamW."""
MARGIN = 1.05
"""Times the tensors: metadata, state and manifest, and the blocks of the disk."""


def lacking_room(folder: Path, size: float) -> str | None:
    """Where `size` bytes of tensors do not fit on the disk of `folder`: both numbers, as the end of a sentence."""
    free = shutil.disk_usage(_existing(folder)).free
    if free >= MARGIN * size:
        return None
    return f"needs {human_bytes(size)}, the disk has {human_bytes(free)} free; make room"


def warn_of_little_room(folder: Path, config: RunConfig) -> None:
    """At the start of a run, whose model is resolved: a warning when its checkpoints will not fit into `folder`.

    Room is due for all that `checkpoint.keep_last` keeps and one more, which is written before an old one leaves.
    """
    size = BYTES_PER_PARAMETER * parameter_count(config.model)
    there = len(checkpoint_steps(folder))
    if (lacking := lacking_room(folder, size)) is not None:
        warn(f"{folder}: a checkpoint {lacking}, or none can be saved.")
        return
    number = config.checkpoint.keep_last + 1 - min(there, config.checkpoint.keep_last)
    if (lacking := lacking_room(folder, number * size)) is not None:
        warn(
            f"{folder}: keeping checkpoint.keep_last={config.checkpoint.keep_last} while another is written {lacking}, "
            "or lower keep_last."
        )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
