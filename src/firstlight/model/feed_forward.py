"""The feed-forward layer: SwiGLU (Shazeer 2020, arXiv:2002.05202, eq. 6) or GELU in its tanh form, as GPT-2 has it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.model.families import FAMILIES


class FeedForward(nn.Module):
    """down(silu(gate(x)) · up(x)) when the family is gated, else down(gelu(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None
        family = FAMILIES[config.architecture]
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=family.bias) if family.gated else None
        self.up_proj = nn.Linear(width, inner, bias=family.bias)
        self.down_proj = nn.Linear(inner, width, bias=family.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [batch, sequence, hidden_size] → the same shape."""
        if self.gate_proj is None:
            return self.down_proj(F.gelu(self.up_proj(hidden), approximate="tanh"))
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
