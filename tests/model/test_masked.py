"""Masked models of every family see both sides, and count only what was hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from firstlight.model import MaskedLanguageModel, build_model
from firstlight.support.errors import ConfigError

VARIANTS: dict[str, dict[str, Any]] = {
    "bert": {"architecture": "bert"},
    "bert-untied": {"architecture": "bert", "tie_word_embeddings": False},
    "modernbert": {"architecture": "modernbert", "sliding_window": 8, "global_attention_every": 2},
    "llama": {"architecture": "llama", "num_key_value_heads": 2},
    "qwen3-window": {"architecture": "qwen3", "sliding_window": 24},
    "olmo2": {"architecture": "olmo2"},
    "gpt2": {"architecture": "gpt2"},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def model(request: pytest.FixtureRequest) -> MaskedLanguageModel:
    shape = {"vocab_size": 97, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_position_embeddings": 48}
    return MaskedLanguageModel(**shape, initializer_range=0.2, seed=3, **request.param)


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def hidden_targets(inputs: torch.Tensor) -> torch.Tensor:
    chosen = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(7)) < 0.3
    return tokens(*inputs.shape, seed=8).masked_fill(~chosen, -100)


def test_every_form_of_the_loss_is_the_mean_over_hidden_tokens(model: MaskedLanguageModel) -> None:
    inputs = tokens(3, 20)
    labels = hidden_targets(inputs)
    output = model(inputs, labels=labels)
    losses, hits = model.token_scores(inputs, labels)
    count = (labels != -100).sum()
    expected = F.cross_entropy(output["logits"].transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(output["loss"], expected.sum() / count)
    torch.testing.assert_close(model.token_loss(inputs, labels), expected.sum())
    assert torch.equal(hits.bool(), (output["logits"].argmax(-1) == labels))
    assert output["loss"].isfinite()


def test_gradients_are_those_of_the_plain_loss(model: MaskedLanguageModel) -> None:
    inputs = tokens(2, 20)
    labels = hidden_targets(inputs)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(model(inputs, labels=labels)["loss"] * (labels != -100).sum(), parameters)
    chosen = torch.autograd.grad(model.token_loss(inputs, labels), parameters)
    torch.testing.assert_close(chosen, plain, rtol=1e-4, atol=1e-4)


def test_the_head_computes_logits_of_hidden_positions_only(model: MaskedLanguageModel) -> None:
    inputs = tokens(2, 20)
    labels = torch.full_like(inputs, -100)
    labels[0, 3] = labels[1, 9] = 5
    seen = []
    model.loss_sum = lambda hidden, *rest: seen.append(hidden.shape) or hidden.sum()
    model.token_loss(inputs, labels)
    assert seen == [(2, 32)]


def test_without_hidden_tokens_loss_and_gradients_are_zero(model: MaskedLanguageModel) -> None:
    inputs = tokens(2, 10)
    loss = model.token_loss(inputs, torch.full_like(inputs, -100))
    loss.backward()
    assert loss == 0
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_a_position_sees_both_sides(model: MaskedLanguageModel) -> None:
    one = tokens(1, 24)
    for place in (0, 23):
        other = one.clone()
        other[0, place] = (one[0, place] + 1) % 97
        difference = (model(one)["logits"] - model(other)["logits"]).abs().amax(-1)[0]
        assert (difference > 1e-6).all()


def test_a_padded_row_is_what_it_is_alone(model: MaskedLanguageModel) -> None:
    texts = [tokens(1, length, seed=length) for length in (5, 11, 16)]
    batch = torch.cat([F.pad(text, (0, 16 - text.shape[1]), value=1) for text in texts])
    mask = torch.stack([(torch.arange(16) < text.shape[1]).long() for text in texts])
    logits = model(batch, attention_mask=mask)["logits"]
    assert logits.isfinite().all()
    for row, text in zip(logits, texts, strict=True):
        torch.testing.assert_close(row[: text.shape[1]], model(text)["logits"][0], rtol=1e-4, atol=1e-4)


def test_document_ids_make_each_document_stand_alone(model: MaskedLanguageModel) -> None:
    first, second = tokens(1, 7), tokens(1, 12, seed=2)
    packed = torch.cat([first, second], dim=1)
    together = model.token_scores(packed, packed, torch.tensor([[0] * 7 + [1] * 12]))
    alone = [model.token_scores(part, part) for part in (first, second)]
    torch.testing.assert_close(together[0], torch.cat(alone, dim=2)[0], rtol=1e-4, atol=1e-4)


def test_token_types_count_where_the_family_has_them() -> None:
    model = MaskedLanguageModel(97, 32, 2, 4, initializer_range=0.2)
    inputs = tokens(2, 8)
    types = (torch.arange(8) > 3).long().expand(2, 8)
    plain, zeros, other = (
        model(inputs, token_type_ids=ids)["logits"] for ids in (None, torch.zeros_like(types), types)
    )
    assert torch.equal(plain, zeros)
    assert (plain - other).abs().max() > 1e-3


def test_a_local_block_sees_half_its_window_on_each_side() -> None:
    model = MaskedLanguageModel(
        97, 32, 1, 4, architecture="qwen3", sliding_window=6, initializer_range=0.2, max_position_embeddings=48
    )
    one = tokens(1, 24)
    other = one.clone()
    other[0, 12] = (one[0, 12] + 1) % 97
    changed = (model(one)["logits"] - model(other)["logits"]).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == list(range(9, 16))


def test_the_objective_decides_the_class(model: MaskedLanguageModel) -> None:
    again = build_model(model.config, seed=3)
    assert type(again) is MaskedLanguageModel
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_fields_that_a_family_does_not_have_are_refused_by_name() -> None:
    for fields, name in (
        ({"architecture": "bert", "rope_theta": 5.0}, "rope_theta"),
        ({"architecture": "llama", "sliding_window": 8}, "sliding_window"),
        ({"architecture": "modernbert", "num_key_value_heads": 2}, "num_key_value_heads"),
        ({"architecture": "gpt2", "type_vocab_size": 2}, "type_vocab_size"),
        ({"architecture": "modernbert", "sliding_window": 0, "global_attention_every": 2}, "global_attention_every"),
    ):
        with pytest.raises(ConfigError, match=name):
            MaskedLanguageModel(97, 32, 2, 4, **fields)
