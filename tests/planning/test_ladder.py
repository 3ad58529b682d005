"""Rungs keep the proportions of their recipe, and their settings follow from it by the stated rules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from firstlight.config import ModelConfig
from firstlight.planning.flops import matmul_parameters
from firstlight.planning.ladder import LadderRules, make_ladder, shape_of_size, sizes_for_budget
from firstlight.recipe import load_config, recipe_names
from firstlight.support.errors import ConfigError

SIZES = (2e7, 1e8, 1e9)


@pytest.mark.parametrize("recipe", recipe_names())
def test_shapes_have_the_size_and_the_proportions(recipe: str) -> None:
    config = load_config(recipe)
    vocab_size, length = config.model.vocab_size or config.tokenizer.vocab_size, config.data.sequence_length
    whole = config.model.resolved(vocab_size, length)
    assert whole.num_key_value_heads and whole.intermediate_size
    for size in SIZES:
        shape = shape_of_size(config.model, size, vocab_size, length)
        model = ModelConfig.model_validate(whole.model_copy(update=shape).model_dump())
        assert matmul_parameters(model) == pytest.approx(size, rel=0.16)
        assert model.num_key_value_heads and model.intermediate_size
        for before, after in (
            (whole.hidden_size / whole.num_hidden_layers, model.hidden_size / model.num_hidden_layers),
            (whole.intermediate_size / whole.hidden_size, model.intermediate_size / model.hidden_size),
            (
                whole.num_attention_heads / whole.num_key_value_heads,
                model.num_attention_heads / model.num_key_value_heads,
            ),
        ):
            assert abs(math.log(after / before)) < math.log(2)


def test_settings_follow_the_recipe_by_powers() -> None:
    recipe = load_config("quickstart", ["training.total_steps=2000", "schedule.warmup_steps=100"])
    whole = matmul_parameters(recipe.model.resolved(4096, 256))
    (rung,) = make_ladder(recipe, 4096, [8e6], [20], "runs/ladder")
    config, batch = rung.config, recipe.training.global_batch_size
    assert batch is not None
    assert config.optimizer.lr == pytest.approx(recipe.optimizer.lr * (whole / rung.parameters) ** 0.25)
    assert config.optimizer.min_lr / config.optimizer.lr == pytest.approx(recipe.optimizer.min_lr / recipe.optimizer.lr)
    wished = batch * (20 * rung.parameters / (2000 * batch * 256)) ** 0.5
    assert config.training.global_batch_size == pytest.approx(wished, rel=0.1)
    assert config.schedule.warmup_steps == pytest.approx(0.05 * config.steps(1), abs=1)
    narrower = recipe.model.hidden_size / rung.model.hidden_size
    assert rung.model.initializer_range == pytest.approx(recipe.model.initializer_range * narrower**0.5)
    assert rung.tokens == pytest.approx(20 * rung.parameters, rel=0.001)
    assert rung.flops > 6 * rung.parameters * rung.tokens
    assert config.run_folder.parts[:2] == ("runs", "ladder")

    (plain,) = make_ladder(recipe, 4096, [8e6], [20], "runs/ladder", LadderRules(0, 0))
    assert plain.config.optimizer.lr == recipe.optimizer.lr
    assert plain.config.training.global_batch_size == batch


def test_a_ladder_has_every_size_at_every_length_cheapest_first() -> None:
    recipe = load_config("quickstart")
    rungs = make_ladder(recipe, 4096, [8e6, 2e6, 4e6], [20, 5], "runs/ladder")
    assert len({rung.name for rung in rungs}) == 6
    assert len({rung.parameters for rung in rungs}) == 3
    assert [rung.flops for rung in rungs] == sorted(rung.flops for rung in rungs)
    assert {round(rung.tokens_per_parameter) for rung in rungs} == {5, 20}


def test_rungs_train_in_one_process_whatever_the_recipe_is_written_for() -> None:
    recipe = load_config("llama-7b")
    (rung,) = make_ladder(recipe, 32_000, [5e7], [20], "runs/ladder")
    assert rung.config.declared_world_size == 1
    assert rung.config.steps(1) * rung.config.batch(1).global_batch_size * 20 > 0


def test_sizes_double_and_their_runs_cost_the_budget() -> None:
    sizes = sizes_for_budget(4, [5, 10, 20], 1e18)
    assert [big / small for small, big in pairwise(sizes)] == pytest.approx([2, 2, 2])
    assert sum(6 * size * ratio * size for size in sizes for ratio in (5, 10, 20)) == pytest.approx(1e18)


@pytest.mark.parametrize(
    ("sizes", "sentence"), [([1e4], "no shape of the recipe's proportions"), ([8e6, 8.05e6], "give one shape")]
)
def test_sizes_that_cannot_be_made_are_refused(sizes: list[float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_ladder(load_config("quickstart"), 4096, sizes, [20], "runs/ladder")
