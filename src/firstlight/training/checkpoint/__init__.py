"""Checkpoints: torch.distributed.checkpoint, whole or absent, verified before they are believed.

    checkpoints/step_000200/  __0_0.distcp  __1_0.distcp …  .metadata  state.json  manifest.json

Every rank writes its own part of every tensor, under the tensor's fully qualified name, so a checkpoint loads at any
layout. The folder is written under a temporary name; the manifest (sizes and SHA-256 of every file) is written last,
when every rank's bytes are on the disk, and the folder is renamed into place. A damaged checkpoint is named, set aside
as `damaged_step_…`, and the one before it is used. A save that fails while training goes on is told and tried again.
Reading never runs a pickle from a file: tensors load with `weights_only`, the metadata through an unpickler that knows
only its own types.
"""

from firstlight.training.checkpoint.folder import (
    checkpoint_folder,
    checkpoint_steps,
    last_good_step,
    read_state,
    set_aside_after,
    verify_checkpoint,
)
from firstlight.training.checkpoint.load import find_checkpoint, load_checkpoint
from firstlight.training.checkpoint.reader import CheckpointTensors, MetadataUnpickler
from firstlight.training.checkpoint.room import warn_of_little_room
from firstlight.training.checkpoint.writer import CheckpointWriter

__all__ = [
    "CheckpointTensors",
    "CheckpointWriter",
    "MetadataUnpickler",
    "checkpoint_folder",
    "checkpoint_steps",
    "find_checkpoint",
    "last_good_step",
    "load_checkpoint",
    "read_state",
    "set_aside_after",
    "verify_checkpoint",
    "warn_of_little_room",
]
