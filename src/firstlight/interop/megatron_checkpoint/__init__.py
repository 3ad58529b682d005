"""Checkpoints of Megatron-LM: folders in its `torch_dist` format become runs, and runs become such folders.

The format keeps every tensor whole under one name, however many tensor and pipeline ranks saved it, so the layout plays
no part in either direction. Source: megatron-core 0.16, `dist_checkpointing` and `models/gpt`. megatron-core itself is
needed for neither; no pickle of a checkpoint is run.
"""

from firstlight.interop.megatron_checkpoint.export_checkpoint import export_megatron, show_how_to_load
from firstlight.interop.megatron_checkpoint.folder import TOKENIZER, checkpoint_folder, is_megatron_checkpoint
from firstlight.interop.megatron_checkpoint.import_checkpoint import MegatronModel, read_megatron

__all__ = [
    "TOKENIZER",
    "MegatronModel",
    "checkpoint_folder",
    "export_megatron",
    "is_megatron_checkpoint",
    "read_megatron",
    "show_how_to_load",
]
