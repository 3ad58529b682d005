"""The Transformer blocks of a model that this process holds: what every technique is applied to, one by one."""

from __future__ import annotations

from typing import Any

from torch import nn


def blocks(model: nn.Module) -> list[Any]:
    """The blocks of `model.model.layers` in order, without those that lie on another pipeline stage."""
    body: Any = model.model
    return [block for block in body.layers if next(block.parameters(), None) is not None]
