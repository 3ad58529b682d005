"""Shapes have the parameters of the models that they are shapes of, our own and published ones."""

from __future__ import annotations

import pytest

from firstlight.config import ModelConfig
from firstlight.planning.flops import matmul_parameters, parameter_count
from firstlight.planning.shape import Shape
from firstlight.recipe import load_config

MIXTRAL = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "gated": True,
    "vocab_size": 32000,
    "block_vectors": 2 * 4096,
    "other_vectors": 4096,
    "experts": 8,
    "experts_per_token": 2,
    "expert_size": 14336,
}


@pytest.mark.parametrize("recipe", ["gpt2-124m", "llama-7b", "llama-1b", "qwen3-0.6b", "bert-base", "modernbert-base"])
def test_the_shape_of_a_recipe_has_its_parameters(recipe):
    model = load_config(recipe).model.resolved()
    shape = Shape.of(model)
    assert shape.parameters == shape.active_parameters == parameter_count(model)
    assert shape.matmul_parameters == matmul_parameters(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"tie_word_embeddings": True},
        {"architecture": "olmo2"},
        {"architecture": "qwen2", "num_key_value_heads": 2},
        {"architecture": "gpt2", "tie_word_embeddings": False, "objective": "masked"},
        {"architecture": "bert", "tie_word_embeddings": False, "type_vocab_size": 0},
    ],
)
def test_what_is_not_embedding_is_blocks_and_norms(fields):
    config = ModelConfig(vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, **fields)
    shape = Shape.of(config.resolved(sequence_length=16))
    blocks = shape.matmul_parameters - shape.embedding_parameters - shape.head_transform
    vectors = 3 * shape.block_vectors + shape.other_vectors
    assert shape.non_embedding_parameters == blocks + vectors


def test_published_models():
    assert Shape.gpt(12, 768, 12, 50257, 1024).parameters == 124_439_808
    assert Shape.gpt(12, 768, 12, 50257, 1024, bias=False).parameters == 124_337_664
    mixtral = Shape(**MIXTRAL)
    assert mixtral.parameters == 46_702_792_704
    assert mixtral.active_parameters == 12_879_925_248


def test_an_expert_more_for_each_token_is_active_and_not_a_parameter_more():
    more = Shape(**{**MIXTRAL, "experts_per_token": 3})
    expert = 32 * 3 * 4096 * 14336
    assert more.parameters == Shape(**MIXTRAL).parameters
    assert more.active_parameters == Shape(**MIXTRAL).active_parameters + expert
    shared = Shape(**{**MIXTRAL, "shared_experts": 1})
    assert shared.parameters == Shape(**MIXTRAL).parameters + expert
    assert shared.active_parameters == more.active_parameters


def test_a_model_whose_layers_are_all_dense_has_no_experts():
    dense = Shape(**{**MIXTRAL, "dense_layers": 32})
    plain = Shape(**{name: value for name, value in MIXTRAL.items() if "expert" not in name})
    assert dense.parameters == dense.active_parameters == plain.parameters
