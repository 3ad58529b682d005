"""What makes one family of decoder differ from another, as data: the Transformer is written once and reads this table.

llama: Touvron et al. 2023 (arXiv:2302.13971), table 2 and section 2.2; gpt2: Radford et al. 2019, section 2.3.
Grouped-query attention, head width, query-key norm and tied embeddings are settings of `ModelConfig`, open to llama.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """The choices that a family fixes."""

    norm: Literal["rms", "layer"]
    positions: Literal["rotary", "learned"]
    gated: bool
    """Feed-forward layer: SwiGLU when true, GELU (tanh form) when false."""
    bias: bool
    """Biases on every linear layer but the output head."""


FAMILIES = {
    "llama": Family(norm="rms", positions="rotary", gated=True, bias=False),
    "gpt2": Family(norm="layer", positions="learned", gated=False, bias=True),
}
