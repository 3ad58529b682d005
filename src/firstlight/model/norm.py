"""Normalisation layers that compute in fp32 whatever they are given.

RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4) and LayerNorm (Ba et al. 2016, arXiv:1607.06450). The residual
stream stays as it is (fp32 under autocast); the output is cast once to the type that the next matrix products use, so
that the three projections that read it do not cast it three times. Where the norm's output is itself the residual
stream (post-norm), it stays in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig


def make_norm(config: ModelConfig, size: int | None = None, *, stream: bool = False) -> nn.Module:
    """The norm of the configured family over `size` features (unset: hidden_size); stream: its output is the residual
    stream, or is added to it."""
    assert config.norm_eps is not None
    size = size or config.hidden_size
    if config.family.norm == "rms":
        return RMSNorm(size, config.norm_eps, stream)
    return LayerNorm(size, config.norm_eps, stream, bias=config.family.norm_bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last dimension."""

    def __init__(self, size: int, eps: float, stream: bool = False) -> None:
        super().__init__()
        self.eps, self.stream = eps, stream
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., size] → the same shape, in autocast's type where autocast is on, or fp32 for the stream."""
        normed = F.rms_norm(hidden.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(output_dtype(hidden, self.stream))


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last dimension."""

    def __init__(self, size: int, eps: float, stream: bool = False, *, bias: bool = True) -> None:
        super().__init__()
        self.eps, self.stream = eps, stream
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., size] → the same shape, in autocast's type where autocast is on, or fp32 for the stream."""
        bias = None if self.bias is None else self.bias.float()
        normed = F.layer_norm(hidden.float(), self.weight.shape, self.weight.float(), bias, self.eps)
        return normed.to(output_dtype(hidden, self.stream))


def output_dtype(hidden: Tensor, stream: bool) -> torch.dtype:
    """The type in which a norm gives its output."""
    if not stream:
        return matmul_dtype(hidden)
    return torch.float32 if under_autocast(hidden) else hidden.dtype


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a matrix product of `tensor` would run."""
    return torch.get_autocast_dtype(tensor.device.type) if under_autocast(tensor) else tensor.dtype


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is on for the device of `tensor`."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
