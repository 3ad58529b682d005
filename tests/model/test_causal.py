"""The causal language model: its size, its loss in every form, what a position may see, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.model import CausalLanguageModel
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError


def tokens(*shape: int, seed: int = 0, vocab_size: int = 97) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def test_two_lines_as_in_a_tutorial() -> None:
    model = CausalLanguageModel(vocab_size=500, hidden_size=64, num_layers=2, num_heads=4)
    output = model(tokens(2, 16, vocab_size=500), labels=tokens(2, 16, vocab_size=500))
    assert output["logits"].shape == (2, 16, 500) and output["loss"].ndim == 0
    assert model(tokens(2, 16))["loss"] is None


@pytest.mark.parametrize(
    ("recipe", "parameters", "embeddings"),
    [
        ("gpt2-124m", 124_439_808, (50257 + 1024) * 768),
        # 32000 · 4096 twice; per layer 4 · 4096² + 3 · 4096 · 11008 + 2 · 4096; the last norm
        ("llama-7b", 6_738_415_616, 32000 * 4096),
    ],
)
def test_size_of_known_models(recipe: str, parameters: int, embeddings: int) -> None:
    with torch.device("meta"):
        model = CausalLanguageModel.from_config(load_config(recipe).model)
    assert model.num_parameters() == parameters
    assert model.num_parameters(exclude_embeddings=True) == parameters - embeddings


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_first_loss_is_that_of_guessing(architecture: str, tied: bool) -> None:
    model = CausalLanguageModel(1000, 128, 4, 4, architecture=architecture, tie_word_embeddings=tied)
    inputs, targets = tokens(4, 64, vocab_size=1000), tokens(4, 64, seed=1, vocab_size=1000)
    loss = model.token_loss(inputs, targets).item() / targets.numel()
    assert loss == pytest.approx(math.log(1000), rel=0.02)


def test_three_forms_of_the_loss_agree(model: CausalLanguageModel) -> None:
    inputs = tokens(3, 20)
    labels = inputs.clone()
    labels[0, 5:9] = -100
    targets = torch.cat([labels[:, 1:], torch.full((3, 1), -100)], dim=1)

    output = model(inputs, labels=labels)
    total = model.token_loss(inputs, targets)
    each = model.token_scores(inputs, targets)[0]

    count = (targets != -100).sum()
    assert count == 3 * 19 - 4
    torch.testing.assert_close(total / count, output["loss"])
    torch.testing.assert_close(each.sum(), total.detach())
    assert each.shape == targets.shape and not each.requires_grad
    assert torch.equal(each == 0, targets == -100)
    expected = F.cross_entropy(output["logits"].transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(each, expected.detach())


def test_gradients_of_the_chunked_loss_are_those_of_the_plain_one(model: CausalLanguageModel) -> None:
    inputs = tokens(2, 12)
    targets = F.pad(inputs[:, 1:], (0, 1), value=-100)
    plain = torch.autograd.grad(model(inputs, labels=inputs)["loss"] * 22, list(model.parameters()))
    chunked = torch.autograd.grad(model.token_loss(inputs, targets), list(model.parameters()))
    torch.testing.assert_close(chunked, plain, rtol=1e-4, atol=1e-4)


def test_a_position_does_not_see_later_ones(model: CausalLanguageModel) -> None:
    one = tokens(1, 24)
    other = torch.cat([one[:, :13], tokens(1, 11, seed=5)], dim=1)
    before, after = (model(ids)["logits"][0] for ids in (one, other))
    torch.testing.assert_close(before[:13], after[:13])
    assert (before[13] - after[13]).abs().max() > 1e-3


def test_a_position_sees_earlier_ones(model: CausalLanguageModel) -> None:
    one = tokens(1, 24)
    other = one.clone()
    other[0, 0] = (one[0, 0] + 1) % 97
    difference = (model(one)["logits"] - model(other)["logits"]).abs().amax(-1)[0]
    assert (difference > 1e-5).all()


def test_document_ids_make_each_document_stand_alone(model: CausalLanguageModel) -> None:
    first, second, third = tokens(1, 7), tokens(1, 1, seed=1), tokens(1, 12, seed=2)
    packed = torch.cat([first, second, third], dim=1)
    # ids need only differ between neighbours; a number may come back later only for the same document
    document_ids = torch.tensor([[4] * 7 + [0] * 1 + [9] * 12])
    targets = tokens(1, 20, seed=3)
    together = model.token_scores(packed, targets, document_ids)[0]
    pieces = targets.split([7, 1, 12], dim=1)
    alone = [model.token_scores(part, piece)[0] for part, piece in zip((first, second, third), pieces, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)
    assert (together - model.token_scores(packed, targets)[0])[0, 8:].abs().max() > 1e-3
    torch.testing.assert_close(model.token_loss(packed, targets, document_ids), together.sum(), rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing_before_it(model: CausalLanguageModel) -> None:
    text = tokens(1, 10)
    padded = torch.cat([text, tokens(1, 6, seed=9)], dim=1)
    mask = torch.tensor([[1] * 10 + [0] * 6])
    alone, output = model(text, labels=text), model(padded, labels=padded, attention_mask=mask)
    torch.testing.assert_close(output["logits"][:, :10], alone["logits"])
    torch.testing.assert_close(output["loss"], alone["loss"])
    assert output["logits"].isfinite().all()


def test_padding_on_the_left_is_not_attended_to() -> None:
    # rotary attention depends on distances only, so the text may stand anywhere
    model = CausalLanguageModel(97, 32, 2, 4, initializer_range=0.2)
    text = tokens(1, 10)
    padded = torch.cat([tokens(1, 6, seed=9), text], dim=1)
    output = model(padded, labels=padded, attention_mask=torch.tensor([[0] * 6 + [1] * 10]))
    torch.testing.assert_close(output["logits"][:, 6:], model(text)["logits"], rtol=1e-4, atol=1e-4)
    assert output["logits"].isfinite().all()


def test_labels_that_all_are_ignored_give_zero(model: CausalLanguageModel) -> None:
    ids = tokens(1, 4)
    assert model(ids, labels=torch.full_like(ids, -100))["loss"].item() == 0


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_fixed_small_set_is_learned_by_heart(architecture: str) -> None:
    model = CausalLanguageModel(64, 64, 2, 4, architecture=architecture, tie_word_embeddings=True)
    inputs, targets = tokens(4, 32, vocab_size=64), tokens(4, 32, seed=1, vocab_size=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    for _ in range(150):
        loss = model.token_loss(inputs, targets) / targets.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_autocast_trains_fp32_parameters_in_bf16(model: CausalLanguageModel) -> None:
    inputs, targets = tokens(2, 16), tokens(2, 16, seed=1)
    precise = model.token_loss(inputs, targets)
    gradients = torch.autograd.grad(precise, list(model.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(inputs)["logits"].dtype == torch.bfloat16
        loss = model.token_loss(inputs, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(precise.item(), rel=0.03)
    rough = torch.autograd.grad(loss, list(model.parameters()))
    assert {gradient.dtype for gradient in rough} == {torch.float32}
    one, other = (torch.cat([gradient.flatten() for gradient in group]) for group in (gradients, rough))
    assert F.cosine_similarity(one, other, dim=0) > 0.99


def test_a_whole_model_in_bf16_stays_close(variant: dict[str, Any]) -> None:
    model = CausalLanguageModel(**variant)
    inputs = tokens(2, 40)
    precise = model(inputs)["logits"]
    rough = model.to(torch.bfloat16)(inputs)["logits"]
    assert rough.dtype == torch.bfloat16
    assert F.cosine_similarity(precise.flatten(), rough.float().flatten(), dim=0) > 0.995


def test_shapes_can_be_asked_of_a_model_without_memory(variant: dict[str, Any]) -> None:
    with torch.device("meta"):
        logits = CausalLanguageModel(**variant)(torch.zeros(2, 8, dtype=torch.long))["logits"]
    assert logits is not None and logits.is_meta and logits.shape == (2, 8, 97)


def test_a_tied_model_has_one_matrix() -> None:
    tied = CausalLanguageModel(97, 32, 2, 4, tie_word_embeddings=True)
    untied = CausalLanguageModel(97, 32, 2, 4)
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"lm_head.weight"}
    assert tied.head_weight is tied.model.embed_tokens.weight
    assert tied.to("cpu", torch.bfloat16).head_weight is tied.model.embed_tokens.weight


def test_from_config_and_the_constructor_build_the_same(variant: dict[str, Any]) -> None:
    fields = dict(variant)
    config = ModelConfig(
        num_hidden_layers=fields.pop("num_layers"), num_attention_heads=fields.pop("num_heads"), **fields
    )
    one, other = CausalLanguageModel(**variant, seed=7), CausalLanguageModel.from_config(config, seed=7)
    assert one.config == other.config
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_tetha": 1e4}, "rope_theta"),
        ({"num_key_value_heads": 3}, "valid: 1, 2, 4"),
        ({"head_dim": 7}, "even head_dim"),
        ({"hidden_size": 30}, "hidden_size 30 is not divisible by num_attention_heads 4"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"architecture": "mamba"}, "architecture"),
    ],
)
def test_a_wrong_shape_is_named(fields: dict[str, Any], words: str) -> None:
    shape = {"vocab_size": 97, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    with pytest.raises(ConfigError, match=words):
        CausalLanguageModel(**{**shape, **fields})


def test_a_configuration_without_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size is missing"):
        CausalLanguageModel.from_config(ModelConfig())


def test_a_sequence_longer_than_the_positions_is_refused(model: CausalLanguageModel) -> None:
    model(tokens(1, 48))
    with pytest.raises(ConfigError, match="49 tokens is longer than the model's max_position_embeddings 48"):
        model(tokens(1, 49))
