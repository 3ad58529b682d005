"""Parameter and FLOP counts agree with the models themselves and with published figures."""

from __future__ import annotations

import pytest
import torch

from firstlight.config import ModelConfig
from firstlight.model import CausalLanguageModel, build_model
from firstlight.model.masks import attention_mask
from firstlight.planning.flops import (
    block_matrices,
    divided_biases,
    hardware_flops_per_token,
    head_matrices,
    matmul_parameters,
    parameter_count,
    positions_seen,
    training_flops_per_token,
    whole_vectors,
)
from firstlight.planning.hardware import published_peak_flops
from firstlight.recipe import load_config


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 2, "architecture": "qwen3", "head_dim": 10},
        {"num_key_value_heads": 2, "architecture": "qwen2"},
        {"num_key_value_heads": 2, "architecture": "olmo2"},
        {"architecture": "gpt2"},
        {"architecture": "gpt2", "tie_word_embeddings": False, "objective": "masked"},
        {"architecture": "bert"},
        {"architecture": "bert", "tie_word_embeddings": False, "type_vocab_size": 0},
        {"architecture": "modernbert"},
    ],
)
def test_the_count_is_that_of_the_model(fields):
    config = ModelConfig(vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, **fields)
    config = config.resolved(sequence_length=16)
    with torch.device("meta"):
        model = build_model(config)
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())
    divided = [p.numel() for n, p in model.named_parameters() if n.startswith("model.layers.1.")]
    assert block_matrices(config) + divided_biases(config) + whole_vectors(config) == sum(divided)


def test_published_sizes():
    assert parameter_count(load_config("gpt2-124m").model.resolved()) == 124_439_808
    assert parameter_count(load_config("llama-7b").model.resolved()) == 6_738_415_616
    assert parameter_count(load_config("llama-1b").model.resolved()) == 1_100_048_384
    assert parameter_count(load_config("qwen3-0.6b").model.resolved()) == 596_049_920
    assert parameter_count(load_config("bert-base").model.resolved()) == 109_514_298
    assert parameter_count(load_config("modernbert-base").model.resolved()) == 149_655_232


def test_flops_are_six_per_weight_plus_half_of_full_attention():
    config = load_config("llama-7b").model.resolved()
    assert matmul_parameters(config) == 6_738_415_616 - 32000 * 4096 - 65 * 4096
    attention = training_flops_per_token(config, 2048) - 6 * matmul_parameters(config)
    assert attention == 12 * 32 * 4096 * 2048 / 2


def test_full_recompute_runs_the_blocks_forward_once_more():
    config = load_config("llama-7b").model.resolved()
    model_flops, head = training_flops_per_token(config, 2048), 6 * head_matrices(config)
    assert hardware_flops_per_token(config, 2048, "none") == model_flops
    assert hardware_flops_per_token(config, 2048, "selective") == model_flops
    assert hardware_flops_per_token(config, 2048, "full") == pytest.approx((model_flops - head) * 4 / 3 + head)


@pytest.mark.parametrize("window", [0, 5, 8, 31, 64])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_positions_seen_are_those_of_the_mask(objective, window):
    config = ModelConfig(architecture="mistral", objective=objective, sliding_window=window, vocab_size=8).resolved()
    length = 32
    mask = attention_mask(torch.arange(length), length, causal=config.causal, window=window)
    exact = mask.float().sum().item() / length
    # half the sequence is the convention where the exact mean is half a position more
    expected = exact - (0.5 if config.causal and not 0 < window < length else 0)
    slack = 0.5 if config.causal and 0 < window < length else 1e-6
    assert positions_seen(config, length, 1) == pytest.approx(expected, abs=slack)


def test_flops_of_a_step_are_what_torch_counts():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = ModelConfig(vocab_size=128, hidden_size=64, num_hidden_layers=2, num_attention_heads=4).resolved()
    model = CausalLanguageModel.from_config(config)
    tokens = torch.randint(128, (2, 32))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens, labels=tokens)["loss"].backward()
    causal_half = 6 * 2 * 64 * 32  # the reference attention computes the whole matrix
    expected = (training_flops_per_token(config, 32) + causal_half) * tokens.numel()
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla K80", None),
    ],
)
def test_peaks_by_device_name(name, peak):
    assert published_peak_flops(name) == peak
