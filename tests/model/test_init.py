"""Initial weights depend on seed and name alone, and have the documented spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from firstlight.config.families import FAMILIES
from firstlight.model import CausalLanguageModel, MaskedLanguageModel


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_identical(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_meta_construction_ends_with_the_same_model(variant: dict[str, Any]) -> None:
    direct = CausalLanguageModel(**variant, seed=5)
    with torch.device("meta"):
        model = CausalLanguageModel(**variant, seed=0)
    assert all(value.is_meta for value in model.state_dict().values())
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    model.init_weights(5)
    assert_identical(parameters(model), parameters(direct))
    ids = torch.arange(40)[None]
    assert torch.equal(model(ids)["logits"], direct(ids)["logits"])


def test_nothing_outside_decides_the_weights(variant: dict[str, Any]) -> None:
    torch.manual_seed(1)
    one = parameters(CausalLanguageModel(**variant, seed=5))
    before = torch.get_rng_state()
    torch.rand(10)
    other = parameters(CausalLanguageModel(**variant, seed=5))
    assert_identical(one, other)
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state()), "construction must not move the global generator"


def test_a_deeper_model_begins_like_a_shallow_one() -> None:
    shallow = parameters(CausalLanguageModel(97, 32, 1, 4))
    deep = parameters(CausalLanguageModel(97, 32, 4, 4))
    for name, value in shallow.items():
        ratio = 2.0 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        torch.testing.assert_close(value, deep[name] * ratio)


def test_seeds_and_names_give_different_draws() -> None:
    one, other = (parameters(CausalLanguageModel(97, 32, 2, 4, seed=seed)) for seed in (0, 1))
    drawn = [value for model in (one, other) for value in model.values() if value.ndim == 2]
    firsts = {value.flatten()[0].item() for value in drawn}
    assert len(firsts) == len(drawn)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "olmo2", "bert", "modernbert"])
def test_spread(architecture: str) -> None:
    family = FAMILIES[architecture]
    kind = CausalLanguageModel if "causal" in family.objectives else MaskedLanguageModel
    model = kind(500, 128, 8, 4, architecture=architecture, initializer_range=0.03)
    for name, value in parameters(model).items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif value.ndim == 1:
            assert (value == 1).all(), name
        else:
            divided = family.norm_place == "pre" and name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = 1 / math.sqrt(2 * 8) if divided else 1.0
            assert value.std().item() == pytest.approx(0.03 * scale, rel=0.05 if value.numel() > 1000 else 0.3), name
            assert abs(value.mean().item()) < 4 * 0.03 * scale / math.sqrt(value.numel()), name


def test_wrappers_around_blocks_change_nothing(variant: dict[str, Any]) -> None:
    plain = parameters(CausalLanguageModel(**variant, seed=5))
    model = CausalLanguageModel(**variant, seed=0)
    layers = model.model.layers
    for index, block in enumerate(layers):
        layers[index] = torch.compile(block, backend="eager")
    model.init_weights(5)
    wrapped = {name.replace("_orig_mod.", ""): value for name, value in parameters(model).items()}
    assert_identical(wrapped, plain)


def test_a_sharded_model_holds_parts_of_the_same_weights(run_as_ranks) -> None:
    run_as_ranks(Path(__file__).with_name("sharded_rank.py"), 2)
