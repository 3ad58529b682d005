"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34).

Channel i is paired with channel i + head_dim / 2, as in Hugging Face's LLaMA, so that export is a plain copy of the
weights. The table is computed in fp32 in every forward pass: it costs a few thousand cosines, needs no buffer that
meta-device construction could leave unfilled, and is not rounded when a model is cast to bf16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from firstlight.config.model import RopeScaling


def rope_table(positions: Tensor, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Cosine and sine of position · theta^(-2i / head_dim): positions [sequence] → [2, sequence, head_dim / 2] fp32."""
    channels = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    frequencies = 1.0 / (theta ** (channels / head_dim))
    if scaling is not None:
        frequencies = stretch(frequencies, scaling)
    angles = positions.float()[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def stretch(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Frequencies for sequences `factor` times longer than those of the first training.

    linear: all divided by the factor (Chen et al. 2023, arXiv:2306.15595, eq. 4). llama3: as LLaMA 3.1 does; a
    frequency that turns fewer than low_freq_factor times within the first length is divided, one that turns more than
    high_freq_factor times stays, and between them the share that is divided falls evenly in the number of turns.
    """
    if scaling.type == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rotate(heads: Tensor, table: Tensor) -> Tensor:
    """Rotate every channel pair of `heads` [batch, heads, sequence, head_dim] by its position's angle, in fp32."""
    cos, sin = table.unbind(0)
    first, second = heads.chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(heads.dtype)
