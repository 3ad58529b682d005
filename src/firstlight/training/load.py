"""A trained model out of a run folder, ready to evaluate, to write or to export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from firstlight.config import RunConfig
from firstlight.model import CausalLanguageModel
from firstlight.support.errors import CheckpointError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import load_checkpoint
from firstlight.training.device import choose_device
from firstlight.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint of a run holds besides the optimizer."""

    run: RunFolder
    config: RunConfig
    model: CausalLanguageModel
    tokenizer: Tokenizer
    state: dict[str, Any]
    """step, samples_consumed, tokens_consumed, validation."""


def build_model(config: RunConfig, device: torch.device) -> CausalLanguageModel:
    """The model of a resolved configuration, initialised by its seed (independent of device and layout)."""
    model = allocate_model(config, device)
    model.init_weights(config.seed)
    return model


def allocate_model(config: RunConfig, device: torch.device) -> CausalLanguageModel:
    """The model of a resolved configuration with whatever its memory holds, for a checkpoint to fill."""
    with torch.device("meta"):
        model = CausalLanguageModel.from_config(config.model)
    return model.to_empty(device=device)


def load_trained(run_folder: str | Path, step: int | None = None, device: str | None = None) -> TrainedModel:
    """The model of a run at `step` (unset: the newest sound checkpoint), in evaluation mode.

    device: auto, cuda, mps or cpu; unset: what the run's configuration says.
    """
    run = RunFolder.open(run_folder)
    config = run.config
    if run.last_step() is None:
        raise CheckpointError(f"{run.path}: no checkpoint yet; train it first: firstlight train {run.path}")
    model = allocate_model(config, choose_device(device or config.training.device))
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    state = load_checkpoint(run.checkpoints, tensors, step)
    return TrainedModel(run, config, model.eval(), run.tokenizer, state)
