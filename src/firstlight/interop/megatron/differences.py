"""Which settings of a recipe may differ in Megatron-LM, and why; any other difference refuses the export."""

from __future__ import annotations

from typing import Any

from firstlight.config import RunConfig
from firstlight.recipe import config_diff
from firstlight.support.errors import ConfigError

MAY_DIFFER: dict[str, str] = {
    "name": "a run is called after its folder",
    "description": "Megatron-LM has none",
    "runs_directory": "a run is called after its folder",
    "data.directory": "stages before training are Firstlight's",
    "data.sources": "each prefix is a source of its own",
    "data.mixture": "each prefix is a source of its own",
    "data.max_epochs": "Megatron-LM has no limit",
    "data.mixture_block_size": "Megatron-LM interleaves sources one by one",
    "data.validation_fraction": "Megatron-LM divides prefixes by --split",
    "data.shard_tokens": "stages before training are Firstlight's",
    "data.split": "Megatron-LM divides prefixes by --split",
    "data.order": "Megatron-LM draws samples in its own order",
    "corpus": "stages before training are Firstlight's",
    "tokenizer": "Megatron-LM trains no tokenizer",
    "model.vocab_size": "Megatron-LM pads the vocabulary to a multiple of 128 × tensor size",
    "model.vocab_padding": "Megatron-LM pads the vocabulary to a multiple of 128 × tensor size",
    "schedule.position": "Megatron-LM's learning rate is one step behind: its warm-up begins at 0",
    "schedule.waits_for_overflow": "Megatron-LM's schedule waits where fp16 overflows",
    "schedule.warmup_tokens": "lengths are in whole samples there",
    "schedule.warmup_steps": "lengths are in whole samples there",
    "schedule.decay_tokens": "lengths are in whole samples there",
    "schedule.decay_steps": "lengths are in whole samples there",
    "training.loss_scale": "Megatron-LM's loss scale begins at 2^32",
    "training.fp16_on_cpu": "Megatron-LM runs on GPUs",
    "training.device": "Megatron-LM runs on GPUs",
    "training.compile": "Megatron-LM has kernels of its own",
    "training.hang_seconds": "Megatron-LM's --distributed-timeout-minutes counts whole minutes, 10 unless given",
    "training.max_hours": "Megatron-LM counts whole minutes",
    "parallel.shard": "data-parallel ranks share the optimizer; Megatron-LM derives their number",
    "parallel.pipeline_schedule": "Megatron-LM runs 1F1B or interleaved 1F1B; results are the same",
    "parallel.pipeline_stages_per_rank": "Megatron-LM runs 1F1B or interleaved 1F1B; results are the same",
    "launch": "torchrun starts the processes",
    "stability": "Megatron-LM skips no steps",
    "checkpoint": "Megatron-LM keeps every checkpoint, or those of --save-retain-interval",
    "evaluation": "Megatron-LM validates on whole global batches of the mixture",
    "logging": "Megatron-LM has its own logs",
}


def differences(recipe: RunConfig, exported: RunConfig) -> list[tuple[str, Any, Any, str]]:
    """(setting, in the recipe, as exported, why). ConfigError for a setting that has no reason to differ."""
    found, refused = [], []
    for key, before, after in config_diff(recipe, exported):
        reason = next((why for name, why in MAY_DIFFER.items() if key == name or key.startswith(f"{name}.")), None)
        if reason is None:
            refused.append(f"{key} = {before!r} would become {after!r}: Megatron-LM's flags cannot say it.")
        else:
            found.append((key, before, after, reason))
    if refused:
        raise ConfigError("\n".join(refused))
    return found
