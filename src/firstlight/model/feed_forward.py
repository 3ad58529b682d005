"""The feed-forward layer: gated (Shazeer 2020, arXiv:2002.05202, eq. 6) or not, with the activation of its family."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
}
"""gelu_tanh: the approximation of Hendrycks & Gimpel 2016 (arXiv:1606.08415), which GPT-2 has."""


class FeedForward(nn.Module):
    """down(activation(gate(x)) · up(x)) when the family is gated, else down(activation(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None
        family, width, inner = config.family, config.hidden_size, config.intermediate_size
        self.activation = ACTIVATIONS[family.activation]
        self.gate_proj = nn.Linear(width, inner, bias=family.biased("gate_proj")) if family.gated else None
        self.up_proj = nn.Linear(width, inner, bias=family.biased("up_proj"))
        self.down_proj = nn.Linear(inner, width, bias=family.biased("down_proj"))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [batch, sequence, hidden_size] → the same shape."""
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(hidden)))
        return self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))
