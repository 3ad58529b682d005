"""Hugging Face's config.json: a model's shape, and nothing about training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.interop.classes import HARMLESS
from firstlight.interop.config_json import read_config
from firstlight.interop.import_config.carried import Left

SEQUENCE_LENGTH = 2048
"""Longest sequences of the recipe, where the model allows them."""


def read(content: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], list[Left]]:
    """The recipe, and the fields that are not in it. ConfigError for a model that Firstlight does not compute."""
    theirs, model = read_config(content, origin)
    section = {key: value for key, value in model.model_dump(mode="json").items() if value is not None}
    length = min(SEQUENCE_LENGTH, model.max_position_embeddings or SEQUENCE_LENGTH)
    known = HARMLESS | theirs.free
    left = [Left(name, content[name], "it does not change the model") for name in content if name in known]
    left.append(Left("training", None, "config.json says nothing about data, optimizer and length; set them"))
    return {"name": theirs.architecture, "data": {"sequence_length": length}, "model": section}, left
