"""Small models of every family and variant, and how to build one."""

from __future__ import annotations

from typing import Any

import pytest

from firstlight.model import CausalLanguageModel

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-grouped": {"num_key_value_heads": 2},
    "llama-wide-heads": {"head_dim": 24, "rope_theta": 5e5, "rope_scaling": {"original_max_position_embeddings": 16}},
    "mistral": {"architecture": "mistral", "num_key_value_heads": 2, "sliding_window": 20},
    "qwen2": {"architecture": "qwen2", "num_key_value_heads": 2},
    "qwen3-tied": {"architecture": "qwen3", "num_key_value_heads": 1, "tie_word_embeddings": True},
    "olmo2": {"architecture": "olmo2", "num_key_value_heads": 2},
    "gpt2": {"architecture": "gpt2"},
    "gpt2-untied": {"architecture": "gpt2", "tie_word_embeddings": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of a model with 97 tokens, 32 channels, 2 layers, 4 heads and 48 positions."""
    return {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 48,
        "initializer_range": 0.2,
        **request.param,
    }


@pytest.fixture
def model(variant: dict[str, Any]) -> CausalLanguageModel:
    """A model of that shape, initialised; weights large enough that attention is far from uniform."""
    return CausalLanguageModel(**variant, seed=3)
