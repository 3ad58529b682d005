"""The formulas give what their papers and tools print."""

from __future__ import annotations

import pytest

from firstlight.planning.memory_conventions import (
    STATES,
    eleuther,
    first_stage_layers,
    interleaving_penalty,
    korthikanti_ends,
    korthikanti_layer,
    megatron_activations,
    megatron_states,
    transformers_layer_copies,
)

GIB = 2**30
KORTHIKANTI = {
    "22b": (64, 6144, 48, 4, 1, 1),
    "175b": (96, 12288, 96, 1, 8, 3),
    "530b": (128, 20480, 105, 1, 35, 3),
    "1t": (160, 25600, 128, 1, 64, 1),
}
"""heads, hidden, layers, micro-batch, pipeline, stages a rank; t = 8, s = 2048 (arXiv:2205.05198, table 3)."""


def test_figure_1_of_zero():
    """7.5 billion parameters on 64 ranks: 120, 31.4, 16.6 and 1.9 GB."""
    found = [7.5 * STATES["zero"].divided(64, stage) for stage in range(4)]
    assert [round(size, 1) for size in found] == [120, 31.4, 16.6, 1.9]


@pytest.mark.parametrize("name", STATES)
def test_dividing_states_only_ever_saves_and_in_the_end_divides_all(name):
    states = STATES[name]
    found = [states.divided(8, stage) for stage in range(4)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[3]) == (states.total, states.total / 8)
    assert all(states.divided(1, stage) == states.total for stage in range(4))


def test_megatron_s_sums():
    assert STATES["megatron"].total == 18
    assert STATES["megatron"].divided(12, 1) == 6 + 12 / 12
    assert [STATES[name].total for name in ("nanotron", "nanotron, fp32 gradients", "fsdp2")] == [16, 20, 16]


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("22b", (6.594, 1.234, 0.824, 0.609, 0.199, 0.0938)),
        ("175b", (2.672, 0.539, 0.334, 0.305, 0.0996, 0.0469)),
        ("530b", (3.828, 0.820, 0.479, 0.508, 0.166, 0.0781)),
        ("1t", (4.785, 1.025, 0.598, 0.635, 0.208, 0.0977)),
    ],
)
def test_layers_of_korthikanti_s_models(name, gib):
    heads, hidden, _, batch, *_ = KORTHIKANTI[name]
    modes = (
        {},
        {"tensor": 8},
        {"tensor": 8, "sequence_parallel": True},
        {"tensor": 8, "recompute": "selective"},
        {"tensor": 8, "sequence_parallel": True, "recompute": "selective"},
        {"recompute": "full"},
    )
    found = [korthikanti_layer(2048, batch, hidden, heads, **mode) / GIB for mode in modes]
    assert found == pytest.approx(gib, rel=3e-3)


def test_savings_that_korthikanti_prints():
    """Section 5: selective recomputation saves 70 % for GPT-3 and 65 % for MT-NLG."""
    for name, saved in (("175b", 0.70), ("530b", 0.65)):
        heads, hidden, *_ = KORTHIKANTI[name]
        none, selective = (korthikanti_layer(2048, 1, hidden, heads, recompute=mode) for mode in ("none", "selective"))
        assert 1 - selective / none == pytest.approx(saved, abs=0.006)


def test_the_first_stage_keeps_all_layers_and_more_when_interleaved():
    assert first_stage_layers(96, 8) == 96
    assert first_stage_layers(96, 8, 3) == 96 * interleaving_penalty(8, 3) == 124


@pytest.mark.parametrize(
    ("name", "states", "activations"),
    [("22b", 46.24, 9.79), ("175b", 46.89, 12.38), ("530b", 33.84, 23.30), ("1t", 35.71, 26.95)],
)
def test_megatron_s_tool(name, states, activations):
    _, hidden, layers, batch, pipeline, stages = KORTHIKANTI[name]
    assert megatron_states(layers, hidden, 51200, tensor=8, pipeline=pipeline) / GIB == pytest.approx(states, abs=0.006)
    found = megatron_activations(
        2048, batch, hidden, layers, 51200, tensor=8, pipeline=pipeline, stages_per_rank=stages
    )
    assert found / GIB == pytest.approx(activations, abs=0.006)


def test_megatron_s_tool_is_korthikanti_s_formula():
    """Selective recomputation with sequence parallelism, interleaving's penalty, and what is outside the layers."""
    _, hidden, layers, batch, pipeline, stages = KORTHIKANTI["175b"]
    layer = korthikanti_layer(2048, batch, hidden, 96, tensor=8, sequence_parallel=True, recompute="selective")
    blocks = first_stage_layers(layers, pipeline, stages) * layer
    dropout = korthikanti_ends(2048, batch, hidden, 51200, tensor=8, pipeline=pipeline)
    tool = megatron_activations(2048, batch, hidden, layers, 51200, tensor=8, pipeline=pipeline, stages_per_rank=stages)
    assert tool == pytest.approx(blocks + dropout, rel=5e-3)


def test_the_foil_prints_what_eleuther_s_tool_prints():
    estimate = eleuther(32, 4096, 32, 2048, 8, checkpointing=True, partition_activations=True, tensor=2, devices=128)
    parts = (estimate.activations, estimate.weights, estimate.gradients, estimate.optimizer, estimate.communication)
    assert [round(part / GIB, 2) for part in parts] == [34.0, 6.4, 25.6, 0.6, 0.93]
    assert round(estimate.total / GIB, 2) == 67.53


@pytest.mark.parametrize(
    ("copies", "sizes"),
    [
        (28.0, {"hidden": 4096, "intermediate": 14336, "query": 4096, "key": 1024}),
        (29.8, {"hidden": 4096, "intermediate": 12288, "query": 4096, "key": 1024, "head_norms": True}),
        (48.0, {"hidden": 2048, "intermediate": 16384, "query": 2048, "key": 256, "norm": "gemma"}),
        (38.0, {"hidden": 2560, "intermediate": 9728, "query": 4096, "key": 1024, "head_norms": True}),
    ],
)
def test_layers_of_transformers_as_they_were_measured(copies, sizes):
    """Bekman, Machine Learning Engineering, "training/performance": Llama 3.1 8B, Qwen3 8B, Gemma 1.1 2B, Qwen3 4B."""
    assert transformers_layer_copies(**sizes) == pytest.approx(copies, rel=0.01)
