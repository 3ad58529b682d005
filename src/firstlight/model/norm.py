"""Normalisation layers that compute in fp32 whatever they are given.

RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4) and LayerNorm (Ba et al. 2016, arXiv:1607.06450). The residual
stream stays as it is (fp32 under autocast); the output is cast once to the type that the next matrix products use, so
that the three projections that read it do not cast it three times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.model.families import FAMILIES


def make_norm(config: ModelConfig, size: int | None = None) -> nn.Module:
    """The norm of the configured family over `size` features (unset: hidden_size)."""
    kind = RMSNorm if FAMILIES[config.architecture].norm == "rms" else LayerNorm
    return kind(size or config.hidden_size, config.norm_eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., size] → the same shape, in autocast's type where autocast is on."""
        normed = F.rms_norm(hidden.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(matmul_dtype(hidden))


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., size] → the same shape, in autocast's type where autocast is on."""
        normed = F.layer_norm(hidden.float(), self.weight.shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(matmul_dtype(hidden))


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a matrix product of `tensor` would run."""
    return torch.get_autocast_dtype(tensor.device.type) if under_autocast(tensor) else tensor.dtype


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is on for the device of `tensor`."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
