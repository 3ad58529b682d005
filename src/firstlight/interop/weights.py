"""Weights to export: their names and whole shapes, and one whole tensor at a time.

A model in memory and a checkpoint on disk give the same; from a checkpoint no model is built, so that a model larger
than the machine's memory can be exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.config import ModelConfig
from firstlight.model import LanguageModel, build_model
from firstlight.training.checkpoint import CheckpointTensors


@dataclass(frozen=True)
class Weights:
    """The parameters of a model by Firstlight's names; a tied matrix has one name."""

    config: ModelConfig
    shapes: Mapping[str, torch.Size]
    read: Callable[[str], Tensor]
    """The whole tensor of a name, on any device; read when asked for."""


def weights_of_model(model: LanguageModel) -> Weights:
    """The weights of a model in memory, without copies."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return Weights(model.config, {name: value.shape for name, value in parameters.items()}, parameters.__getitem__)


def weights_of_checkpoint(tensors: CheckpointTensors, config: ModelConfig) -> Weights:
    """The weights in a checkpoint of a model with the resolved configuration `config`, whatever its layout was.

    CheckpointError when it is a checkpoint of another model.
    """
    shapes = parameter_shapes(config)
    tensors.check({f"model.{name}": shape for name, shape in shapes.items()})
    return Weights(config, shapes, lambda name: tensors.read(f"model.{name}"))


def parameter_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Name and whole shape of every parameter of the model that a resolved configuration describes."""
    with torch.device("meta"):  # names and shapes, no memory
        return {name: value.shape for name, value in build_model(config).named_parameters()}
