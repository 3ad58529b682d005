"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34).

Channel i is paired with channel i + head_dim / 2, as in Hugging Face's LLaMA, so that export is a plain copy of the
weights. The table is computed in fp32 in every forward pass: it costs a few thousand cosines, needs no buffer that
meta-device construction could leave unfilled, and is not rounded when a model is cast to bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Cosine and sine of position · theta^(-2i / head_dim): positions [sequence] → [2, sequence, head_dim / 2] fp32."""
    channels = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    frequencies = 1.0 / (theta ** (channels / head_dim))
    angles = positions.float()[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotate(heads: Tensor, table: Tensor) -> Tensor:
    """Rotate every channel pair of `heads` [batch, heads, sequence, head_dim] by its position's angle, in fp32."""
    cos, sin = table.unbind(0)
    first, second = heads.chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(heads.dtype)
