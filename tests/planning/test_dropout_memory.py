"""What dropout adds to the memory of a step is what a real model keeps for it."""

from __future__ import annotations

from typing import Any

import pytest

from firstlight.model import attention
from firstlight.planning import activations

from .test_memory import BATCH, MODES, SEQUENCE, Storages, build, estimate, run

FAMILIES: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2},
    "qk-norm": {"architecture": "qwen3"},
    "gpt2": {"architecture": "gpt2", "tie_word_embeddings": False},
}


@pytest.mark.parametrize("fields", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_blocks_keep_what_is_estimated(fields, precision, mode):
    """To the byte, but for the keys that rows draw from and, without recomputation, one causal mask for all rows."""
    for dropout in ({"hidden_dropout": 0.1}, {"attention_dropout": 0.1}):
        kept, estimated = [], []
        for num_layers in (1, 3):
            model = build(mode, num_layers, {**fields, **dropout})
            with Storages(model) as storages:
                total = run(model, precision)
            expected = estimate(model, precision=precision, recompute=mode)
            copies = expected.compute_weights if mode == "none" else 0
            kept.append(storages.held)
            estimated.append(expected.activations + copies)
            del total
        causal_masks = 2 * SEQUENCE**2 if mode == "none" and "attention_dropout" in dropout else 0
        keys = 0 if mode == "none" else 2 * 3 * BATCH * 8
        assert kept[1] - kept[0] == estimated[1] - estimated[0] + causal_masks + keys


def test_its_blocks_of_queries_are_those_of_attention():
    for name in ("SMALLEST_BLOCK", "MOST_BLOCKS"):
        assert getattr(activations, name) == getattr(attention, name), name
