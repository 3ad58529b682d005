"""The shipped recipes: each can be planned as it is, and those of published models have the published values."""

from __future__ import annotations

import pytest

from firstlight.recipe import load_config, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_planned(name, firstlight):
    config = load_config(name)
    result = firstlight("train", name, "--dry-run")
    assert result.code == 0, result.stderr
    assert f"{config.steps(config.declared_world_size):,} steps" in result.stdout


@pytest.mark.parametrize("name", ["quickstart", "llama-1b"])
def test_a_masked_run_of_a_recipe_is_one_setting_away(name):
    causal, masked = load_config(name), load_config(name, ["model.objective=masked"])
    assert (causal.model.causal, masked.model.causal) == (True, False)
    assert masked.model_copy(update={"model": causal.model}) == causal
    assert masked.predicted_share == 0.15


def test_bert_base_has_the_published_values():
    config = load_config("bert-base")
    model = config.model.resolved()
    assert (model.vocab_size, model.hidden_size, model.intermediate_size) == (30522, 768, 3072)
    assert (model.num_hidden_layers, model.num_attention_heads, model.max_position_embeddings) == (12, 12, 512)
    assert (model.norm_eps, model.type_vocab_size, model.tie_word_embeddings) == (1e-12, 2, True)
    optimizer, schedule, training = config.optimizer, config.schedule, config.training
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (1e-4, (0.9, 0.999), 1e-6)
    assert (optimizer.weight_decay, optimizer.min_lr) == (0.01, 0)
    assert (schedule.name, schedule.warmup_steps, training.total_steps) == ("linear", 10_000, 1_000_000)
    assert (training.global_batch_size, config.data.sequence_length) == (256, 512)
    assert (config.masking.fraction, config.masking.masked, config.masking.random) == (0.15, 0.8, 0.1)


def test_modernbert_base_has_the_published_values():
    config = load_config("modernbert-base")
    model = config.model.resolved()
    assert (model.vocab_size, model.hidden_size, model.intermediate_size) == (50368, 768, 1152)
    assert (model.num_hidden_layers, model.num_attention_heads, model.max_position_embeddings) == (22, 12, 8192)
    assert (model.sliding_window, model.global_attention_every) == (128, 3)
    assert (model.rope_theta, model.local_rope_theta, model.norm_eps) == (160_000, 10_000, 1e-5)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.betas) == (8e-4, 1e-5, (0.9, 0.98))
    assert (config.schedule.name, config.schedule.warmup_tokens) == ("wsd", 3_000_000_000)
    assert (config.masking.fraction, config.data.sequence_length) == (0.3, 1024)


def test_qwen3_has_the_published_shape():
    model = load_config("qwen3-0.6b").model.resolved()
    assert (model.vocab_size, model.hidden_size, model.intermediate_size) == (151_936, 1024, 3072)
    assert (model.num_hidden_layers, model.num_attention_heads, model.num_key_value_heads) == (28, 16, 8)
    assert (model.head_dim, model.rope_theta, model.max_position_embeddings) == (128, 1e6, 32_768)
    assert (model.norm_eps, model.tie_word_embeddings) == (1e-6, True)
