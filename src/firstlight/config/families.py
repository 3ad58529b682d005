"""What makes one family of Transformer differ from another, as data: the model is written once and reads this table.

A family fixes the kind of its parts and gives defaults to settings; `ModelConfig` holds the sizes. Sources: llama:
Touvron et al. 2023 (arXiv:2302.13971), section 2.2, and Llama Team 2024 (arXiv:2407.21783); gpt2: Radford et al. 2019,
section 2.3; mistral: Jiang et al. 2023 (arXiv:2310.06825); qwen2, qwen3: Yang et al. 2024 (arXiv:2407.10671) and 2025
(arXiv:2505.09388); olmo2: OLMo Team 2024 (arXiv:2501.00656), section 3; bert: Devlin et al. 2018 (arXiv:1810.04805);
modernbert: Warner et al. 2024 (arXiv:2412.13663).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Architecture = Literal["llama", "mistral", "qwen2", "qwen3", "olmo2", "gpt2", "bert", "modernbert"]
Objective = Literal["causal", "masked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The choices that a family fixes, and its defaults for those that are left."""

    norm: Literal["rms", "layer"]
    norm_bias: bool = False
    """Bias of LayerNorm."""
    norm_place: Literal["pre", "post", "reordered"] = "pre"
    """pre: x + f(norm(x)); post: norm(x + f(x)), as first published; reordered: x + norm(f(x)) (OLMo 2)."""
    first_norm: bool = True
    """The first block normalises what its attention reads; ModernBERT's embeddings are normalised already."""
    last_norm: bool = True
    """The last hidden states are normalised; post-norm blocks end with a norm of their own."""
    positions: Literal["rotary", "learned"]
    embedding_norm: bool = False
    activation: Literal["silu", "gelu", "gelu_tanh"]
    gated: bool
    """Feed-forward layer: down(activation(gate(x)) · up(x)) when true, else down(activation(up(x)))."""
    bias: Literal["none", "qkv", "all"] = "none"
    """Linear layers of blocks that have biases."""
    qk_norm: Literal["none", "head", "all"] = "none"
    """RMSNorm on queries and keys before the rotation: of each head (Qwen3), or of all heads together (OLMo 2)."""
    transform: Literal["none", "bias", "no_bias"] = "none"
    """Before the vocabulary's matrix a dense layer, activation and norm; after it a bias for each token."""
    objectives: tuple[Objective, ...] = ("causal", "masked")
    """What it may learn; the first is the default."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of `ModelConfig` fields that are left unset, where they differ from `DEFAULTS`."""
    optional: frozenset[str] = frozenset()
    """Fields of `ModelConfig` that not every family has, and this one has."""

    def biased(self, projection: str) -> bool:
        """Whether a linear layer of a block, as `q_proj`, has a bias."""
        return self.bias == "all" or (self.bias == "qkv" and projection in ("q_proj", "k_proj", "v_proj"))


DEFAULTS: dict[str, Any] = {
    "norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "sliding_window": 0,
    "global_attention_every": 0,
    "type_vocab_size": 0,
}
"""What a family that says nothing else takes for an unset field of `ModelConfig`."""
_ROTARY = frozenset({"rope_theta", "rope_scaling"})
_GROUPED = frozenset({"num_key_value_heads", "head_dim"})

_LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rotary", "activation": "silu", "gated": True}

FAMILIES: dict[str, Family] = {
    "llama": Family(**_LLAMA, optional=_ROTARY | _GROUPED),
    "mistral": Family(**_LLAMA, optional=_ROTARY | _GROUPED | {"sliding_window"}),
    "qwen2": Family(**_LLAMA, bias="qkv", optional=_ROTARY | {"num_key_value_heads", "sliding_window"}),
    "qwen3": Family(**_LLAMA, qk_norm="head", optional=_ROTARY | _GROUPED | {"sliding_window"}),
    "olmo2": Family(**_LLAMA, norm_place="reordered", qk_norm="all", optional=_ROTARY | {"num_key_value_heads"}),
    "gpt2": Family(
        norm="layer",
        norm_bias=True,
        positions="learned",
        activation="gelu_tanh",
        gated=False,
        bias="all",
        defaults={"norm_eps": 1e-5, "tie_word_embeddings": True},
    ),
    "bert": Family(
        norm="layer",
        norm_bias=True,
        norm_place="post",
        last_norm=False,
        positions="learned",
        embedding_norm=True,
        activation="gelu",
        gated=False,
        bias="all",
        transform="bias",
        objectives=("masked",),
        defaults={"norm_eps": 1e-12, "tie_word_embeddings": True, "type_vocab_size": 2},
        optional=frozenset({"type_vocab_size"}),
    ),
    "modernbert": Family(
        norm="layer",
        first_norm=False,
        positions="rotary",
        embedding_norm=True,
        activation="gelu",
        gated=True,
        transform="no_bias",
        objectives=("masked",),
        defaults={
            "norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "sliding_window": 128,
            "global_attention_every": 3,
        },
        optional=frozenset({"rope_theta", "local_rope_theta", "sliding_window", "global_attention_every"}),
    ),
}
