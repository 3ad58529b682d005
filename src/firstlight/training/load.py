"""What a run folder holds of a trained model: ready to evaluate and to write, or its tensors one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from firstlight.config import ParallelConfig, RunConfig
from firstlight.model import LanguageModel, build_model
from firstlight.support.errors import CheckpointError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointTensors, find_checkpoint, load_checkpoint, read_state
from firstlight.training.device import choose_device
from firstlight.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint of a run holds besides the optimizer."""

    run: RunFolder
    config: RunConfig
    model: LanguageModel
    tokenizer: Tokenizer
    state: dict[str, Any]
    """step, samples_consumed, tokens_consumed, validation."""


@dataclass(frozen=True)
class TrainedTensors:
    """The same on disk: no model is built."""

    run: RunFolder
    config: RunConfig
    tensors: CheckpointTensors
    tokenizer: Tokenizer
    state: dict[str, Any]


def allocate_model(config: RunConfig, device: torch.device) -> LanguageModel:
    """The model of a resolved configuration with whatever its memory holds, for a checkpoint to fill."""
    with torch.device("meta"):
        model = build_model(config.model)
    return model.to_empty(device=device)


def load_trained(run_folder: str | Path, step: int | None = None, device: str | None = None) -> TrainedModel:
    """The model of a run at `step` (unset: the newest sound checkpoint), in evaluation mode.

    device: auto, cuda, mps or cpu; unset: what the run's configuration says.
    """
    run, config = _trained_run(run_folder)
    model = allocate_model(config, choose_device(device or config.training.device))
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    state = load_checkpoint(run.checkpoints, tensors, step)
    return TrainedModel(run, config, model.eval(), run.tokenizer, state)


def open_trained(run_folder: str | Path, step: int | None = None) -> TrainedTensors:
    """The tensors of a run at `step` (unset: the newest sound checkpoint), verified, to be read one at a time."""
    run, config = _trained_run(run_folder)
    path = find_checkpoint(run.checkpoints, step)
    return TrainedTensors(run, config, CheckpointTensors(path), run.tokenizer, read_state(path))


def _trained_run(run_folder: str | Path) -> tuple[RunFolder, RunConfig]:
    run = RunFolder.open(run_folder)
    config = run.config.model_copy(update={"parallel": ParallelConfig()})  # what reads a run is one process
    if run.last_step() is None:
        raise CheckpointError(f"{run.path}: no checkpoint yet; train it first: firstlight train {run.path}")
    return run, config
