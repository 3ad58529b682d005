"""Conventions of FLOPs: each gives its publisher's figures, and they stand to each other as their definitions say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning.conventions import (
    attention_flops,
    bigscience_flops_per_second,
    chinchilla_appendix_f,
    hardware_flops_utilization,
    korthikanti_hardware,
    korthikanti_model,
    megatron_2021_hardware,
    megatron_lm,
    megatron_parameters,
    model_flops_utilization,
    nanochat,
    nanogpt,
    palm,
    six_n,
    torchtitan,
    with_full_recompute,
)
from firstlight.planning.flops import training_flops_per_token
from firstlight.planning.shape import Shape
from firstlight.recipe import load_config

GPT_3 = {"layers": 96, "hidden": 12288, "vocab": 51200, "sequence_length": 2048}
GPT_2 = Shape.gpt(12, 768, 12, 50257, 1024, bias=False)
gpts = st.builds(
    Shape.gpt,
    layers=st.integers(1, 200),
    hidden=st.integers(1, 200).map(lambda n: 64 * n),
    heads=st.just(4),
    vocab=st.integers(1, 300_000),
    positions=st.just(0),
)
lengths = st.integers(1, 10**6)


def test_gpt_3_in_every_convention():
    assert megatron_parameters(**GPT_3) == pytest.approx(174_615_822_336)
    assert six_n(megatron_parameters(**GPT_3)) == pytest.approx(1.0476949340160e12)
    assert korthikanti_model(**GPT_3) == pytest.approx(1.0764429557760e12)
    assert korthikanti_hardware(**GPT_3) == pytest.approx(1.1054339850240e12)
    assert korthikanti_model(**GPT_3, causal=True) == pytest.approx(1.0619474411520e12)
    assert megatron_2021_hardware(**GPT_3) == pytest.approx(1.4339989831680e12)


def test_nanogpt_in_its_own_and_in_palms():
    assert korthikanti_model(12, 768, 50257, 1024) * 1024 == pytest.approx(874_944_921_600)
    assert nanogpt(GPT_2, 1024) * 1024 == pytest.approx(875_062_886_400)


def test_palm_540b():
    """PaLM, section 4.1: 238.3 thousand tokens a second on 6,144 TPU v4 are 45.7 %, and 46.2 % with attention."""
    flops = palm(540.35e9, 118, 48 * 256, 2048)
    assert model_flops_utilization(flops, 238.3e3, 6144, 275e12) == pytest.approx(0.462, abs=0.0005)
    assert model_flops_utilization(six_n(540.35e9), 238.3e3, 6144, 275e12) == pytest.approx(0.457, abs=0.0005)


@pytest.mark.parametrize("recipe", ["llama-7b", "qwen3-0.6b", "gpt2-124m"])
def test_megatron_lm_counts_as_firstlight_does(recipe):
    model = load_config(recipe).model.resolved()
    assert megatron_lm(Shape.of(model), 2048) == pytest.approx(training_flops_per_token(model, 2048))


@given(gpts, lengths)
def test_korthikanti_is_all_matrices_and_whole_attention(shape, length):
    sizes = shape.num_hidden_layers, shape.hidden_size, shape.vocab_size, length
    attention = attention_flops(shape.num_hidden_layers, shape.attention_width, length)
    assert korthikanti_model(*sizes) == pytest.approx(six_n(shape.matmul_parameters) + attention)
    assert korthikanti_model(*sizes, causal=True) == pytest.approx(megatron_lm(shape, length))
    assert korthikanti_model(*sizes) == pytest.approx(nanochat(shape, [length] * shape.num_hidden_layers))


@given(gpts, lengths)
def test_hardware_flops_are_model_flops_and_what_is_computed_again(shape, length):
    sizes = shape.num_hidden_layers, shape.hidden_size, shape.vocab_size, length
    attention = attention_flops(shape.num_hidden_layers, shape.attention_width, length)
    head = six_n(shape.embedding_parameters)
    model = korthikanti_model(*sizes)
    assert korthikanti_hardware(*sizes) == pytest.approx(model + attention)
    assert megatron_2021_hardware(*sizes) == pytest.approx(with_full_recompute(model - head) + head)


@given(gpts, lengths)
def test_appendix_f_without_its_ends_is_6n_attention_and_softmax(shape, length):
    """A forward pass multiplies each weight of the blocks once; scores, values and softmax come on top."""
    bare = chinchilla_appendix_f(shape, length, embeddings=False)
    blocks = six_n(shape.matmul_parameters - shape.embedding_parameters)
    softmax = 9.0 * shape.num_hidden_layers * shape.num_attention_heads * length
    attention = attention_flops(shape.num_hidden_layers, shape.attention_width, length)
    assert bare == pytest.approx(blocks + attention + softmax)
    assert chinchilla_appendix_f(shape, length) - bare == pytest.approx(2 * six_n(shape.embedding_parameters))


def test_torchtitan_leaves_the_token_table_out_unless_it_is_tied():
    untied = replace(GPT_2, tied=False)
    assert torchtitan(GPT_2, 1024) == palm(GPT_2.parameters, 12, 768, 1024)
    assert torchtitan(untied, 1024) == palm(untied.parameters - 50257 * 768, 12, 768, 1024)


def test_windows_shorten_attention_only():
    short = nanochat(GPT_2, [256] * 6 + [1024] * 6)
    assert nanochat(GPT_2, [1024] * 12) - short == 12 * 768 * 6 * 768


def test_hfu_is_mfu_with_more_to_count():
    speed = {"tokens_per_second": 1000.0, "devices": 4, "peak_flops": 312e12}
    mfu = model_flops_utilization(korthikanti_model(**GPT_3), **speed)
    hfu = hardware_flops_utilization(korthikanti_hardware(**GPT_3), **speed)
    assert hfu / mfu == pytest.approx(korthikanti_hardware(**GPT_3) / korthikanti_model(**GPT_3))
    assert hfu > mfu


def test_the_rule_of_bigscience():
    """2,048 sequences of 2,048 tokens of a model of 176 billion in 105 seconds on 384 devices."""
    tokens_per_second = 2048 * 2048 / 105
    assert bigscience_flops_per_second(176e9, tokens_per_second) / 384 == pytest.approx(146.5e12, rel=1e-3)
    without = bigscience_flops_per_second(176e9, tokens_per_second, recompute=False)
    assert bigscience_flops_per_second(176e9, tokens_per_second) == pytest.approx(with_full_recompute(without))
