"""What is dropped: the right share, of unrelated places, a function of sample and place alone, and only in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from firstlight.config import ModelConfig
from firstlight.model import CausalLanguageModel, LanguageModel, build_model
from firstlight.model.attention import attend, attend_in_blocks
from firstlight.model.dropout import (
    ATTENTION_OUTPUT,
    FEED_FORWARD,
    Draws,
    draws_of_blocks,
    drop_hidden,
    dropped_weights,
)
from firstlight.model.masks import attention_mask
from firstlight.parallel.recompute import apply_recompute
from firstlight.tokens.draws import draw

LENGTH, ROWS, VOCABULARY = 24, 4, 97
TOKENS = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
KEYS = torch.tensor([3, -8, 2**60, 11])
ARCHITECTURES = ("llama", "qwen3", "olmo2", "gpt2", "bert", "modernbert")
Captured = list[Any]


def build(architecture: str = "llama", **fields: Any) -> LanguageModel:
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ModelConfig(architecture=architecture, **{**shape, "initializer_range": 0.1, **fields})
    return build_model(config.resolved(sequence_length=LENGTH), seed=1)


def loss(model: LanguageModel, keys: torch.Tensor | None = KEYS, rows: slice = slice(None)) -> torch.Tensor:
    return model.token_loss(TOKENS[rows], TOKENS[rows], dropout_keys=None if keys is None else keys[rows])


def masks(samples: int, blocks: int, length: int, channels: int, probability: float) -> torch.Tensor:
    """[blocks, places, samples, length, channels], 1 where dropped, for samples 0, 1, … of a run."""
    keys = torch.from_numpy(draw(5, np.arange(samples)).view(np.int64))
    positions = torch.arange(length)
    whole = torch.ones(samples, length, channels)
    return torch.stack(
        [
            torch.stack([drop_hidden(whole, draws, place, probability) for place in (ATTENTION_OUTPUT, FEED_FORWARD)])
            for draws in draws_of_blocks(keys, blocks, positions, positions)
        ]
    ).eq(0)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_the_right_share_is_dropped_everywhere(probability: float) -> None:
    """Counts of every channel, position, sample and block lie as those of independent draws do: chi-square over each
    is within five standard deviations of its degrees of freedom."""
    found = masks(8, 3, 64, 256, probability).double()
    deviation = math.sqrt(probability * (1 - probability))
    assert abs(found.mean() - probability) < 4 * deviation / math.sqrt(found.numel())
    for dimension in range(found.ndim):
        counts = found.movedim(dimension, 0).flatten(1)
        size, (groups, draws) = counts.shape[0], counts.shape
        chi_square = ((counts.sum(1) - draws * probability) ** 2).sum() / (draws * deviation**2)
        assert abs(chi_square - groups) < 5 * math.sqrt(2 * size), (dimension, chi_square)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_neighbours_know_nothing_of_each_other(probability: float) -> None:
    """Correlations at small distances, of powers of two and others, in every dimension are those of chance."""
    found = (masks(8, 3, 64, 256, probability).double() - probability) / math.sqrt(probability * (1 - probability))
    for dimension, size in enumerate(found.shape):
        for distance in (d for d in (1, 2, 3, 4, 7, 8, 16, 32, 64, 128) if d < size):
            pairs = found.narrow(dimension, 0, size - distance) * found.narrow(dimension, distance, size - distance)
            assert abs(pairs.mean()) < 4.5 / math.sqrt(pairs.numel()), (dimension, distance)
    rows = found.flatten(0, 3)
    products = (rows @ rows.T / math.sqrt(rows.shape[1])).fill_diagonal_(0)  # any two rows
    assert products.abs().max() < 8
    assert abs(products.square().sum() / (len(rows) * (len(rows) - 1)) - 1) < 0.01


def test_attention_weights_are_dropped_evenly_and_apart_from_each_other() -> None:
    keys = torch.from_numpy(draw(5, np.arange(4)).view(np.int64))
    _, draws = draws_of_blocks(keys, 2, torch.arange(64), torch.arange(64))
    dropout = dropped_weights(draws, 0, 6, 0.1)
    assert dropout is not None
    found = (dropout(torch.ones(4, 6, 64, 64)).eq(0).double() - 0.1) / 0.3
    assert abs(found.mean()) < 4 / math.sqrt(found.numel())
    for dimension, size in enumerate(found.shape):
        for distance in range(1, min(size, 5)):
            pairs = found.narrow(dimension, 0, size - distance) * found.narrow(dimension, distance, size - distance)
            assert abs(pairs.mean()) < 4.5 / math.sqrt(pairs.numel()), (dimension, distance)


def test_what_stays_is_scaled_and_a_part_is_dropped_as_in_the_whole() -> None:
    positions = torch.arange(LENGTH)
    _, draws = draws_of_blocks(KEYS, 2, positions, positions)
    hidden = torch.randn(ROWS, LENGTH, 40)
    dropped = drop_hidden(hidden, draws, FEED_FORWARD, 0.25)
    stays = dropped != 0
    assert 0.6 < stays.float().mean() < 0.9
    torch.testing.assert_close(dropped[stays], hidden[stays] / 0.75)
    part = torch.tensor([3, 4, 17])
    own = draws_of_blocks(KEYS[2:], 2, part, part)[1]
    assert torch.equal(drop_hidden(hidden[2:, part], own, FEED_FORWARD, 0.25), dropped[2:, part])
    assert drop_hidden(hidden.bfloat16(), draws, FEED_FORWARD, 0.25).dtype == torch.bfloat16
    assert drop_hidden(hidden, None, FEED_FORWARD, 0.25) is drop_hidden(hidden, draws, FEED_FORWARD, 0.0) is hidden


@given(st.integers(1, 20), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(), st.integers(1, 9))
def test_attention_with_dropout_is_the_formula(
    length: int, groups: int, causal: bool, documents: bool, block_size: int
) -> None:
    generator = torch.Generator().manual_seed(length)
    query, key, value = (torch.randn(2, n, length, 8, generator=generator) for n in (4, groups, groups))
    positions = torch.arange(length)
    draws = draws_of_blocks(KEYS[:2], 1, positions, positions)[0]
    dropout = dropped_weights(draws, 0, 4, 0.3)
    assert dropout is not None
    ids = torch.tensor([[0] * 3 + [1] * 17, [0] * 20])[:, :length]
    mask = attention_mask(positions, length, causal=causal, document_ids=ids) if documents else None
    allowed = attention_mask(positions, length, causal=causal, document_ids=ids if documents else None)
    key_heads, value_heads = (heads.repeat_interleave(4 // groups, 1) for heads in (key, value))
    scores = (query @ key_heads.transpose(2, 3) / math.sqrt(8)).masked_fill(~allowed, -math.inf)
    expected = dropout(scores.softmax(-1)) / 0.7 @ value_heads
    torch.testing.assert_close(attend(query, key, value, mask, causal, dropout), expected)
    blocks = attend_in_blocks(query, key_heads, value_heads, block_size, mask=mask, causal=causal, dropout=dropout)
    torch.testing.assert_close(blocks, expected)


def test_a_head_drops_the_same_wherever_it_lies() -> None:
    draws = draws_of_blocks(KEYS, 1, torch.arange(LENGTH), torch.arange(LENGTH))[0]
    whole, last = dropped_weights(draws, 0, 4, 0.5), dropped_weights(draws, 3, 1, 0.5)
    assert whole is not None and last is not None
    ones = torch.ones(ROWS, 4, LENGTH, LENGTH)
    assert torch.equal(whole(ones)[:, 3:], last(ones[:, 3:]))
    part = slice(5, 9)
    assert torch.equal(whole(ones)[:, :, part], whole.rows(part)(ones[:, :, part]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_and_both_sublayers_are_dropped(architecture: str) -> None:
    """Where next to everything is dropped nothing reaches the head, and all tokens are equally likely."""
    model = build(architecture, hidden_dropout=1 - 2**-31)
    assert loss(model).item() == pytest.approx(TOKENS.numel() * math.log(VOCABULARY), rel=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_attention_weights_are_dropped(architecture: str) -> None:
    model, without = build(architecture, attention_dropout=1 - 2**-31), build(architecture)
    with torch.no_grad():
        for layer in without.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    torch.testing.assert_close(loss(model), loss(without))


@pytest.mark.parametrize("kind", ["hidden_dropout", "attention_dropout"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mask_depends_on_the_sample_and_on_nothing_else(architecture: str, kind: str) -> None:
    model = build(architecture, **{kind: 0.1})
    whole = loss(model)
    assert torch.equal(loss(model), whole)
    torch.testing.assert_close(loss(model, rows=slice(0, 1)) + loss(model, rows=slice(1, 4)), whole)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.token_loss(TOKENS[order], TOKENS[order], dropout_keys=KEYS[order]), whole)
    assert abs(loss(model, KEYS + 1) - whole) > 1e-3
    assert abs(loss(model.eval()) - whole) > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_without_training_there_is_none(architecture: str) -> None:
    model, without = build(architecture, hidden_dropout=0.5, attention_dropout=0.5), build(architecture)
    assert torch.equal(model.token_scores(TOKENS, TOKENS), without.token_scores(TOKENS, TOKENS))
    assert torch.equal(loss(model.eval()), loss(without))
    assert torch.equal(model(TOKENS)["logits"], without(TOKENS)["logits"])
    if isinstance(model, CausalLanguageModel):
        model.train()
        assert isinstance(without, CausalLanguageModel)
        found = [part.decode_step(TOKENS, part.new_cache(LENGTH)) for part in (model, without)]
        assert torch.equal(*found)


def test_in_a_loop_of_ones_own_the_generator_of_pytorch_draws_the_keys() -> None:
    model = build(hidden_dropout=0.2)
    torch.manual_seed(1)
    first, second = (model(TOKENS, labels=TOKENS)["loss"] for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(model(TOKENS, labels=TOKENS)["loss"], first)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert not torch.equal(loss(model, None), loss(model, None))


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(str(operator))
        return operator(*args, **(kwargs or {}))


def test_none_costs_nothing() -> None:
    """Without dropout a step has the operations that it has without keys, and the generator stays where it is."""
    before = torch.get_rng_state()
    counts = []
    for keys in (KEYS, None):
        model = build()
        with Operations() as operations:
            model.token_loss(TOKENS, TOKENS, dropout_keys=keys).backward()
        counts.append(operations.names)
    assert counts[0] == counts[1]
    assert torch.equal(torch.get_rng_state(), before)
    with Operations() as operations:
        build(hidden_dropout=0.1).token_loss(TOKENS, TOKENS, dropout_keys=KEYS).backward()
    assert len(operations.names) > len(counts[0]), "nothing was counted"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_recomputation_drops_the_same(architecture: str, dtype: torch.dtype) -> None:
    results = []
    for mode in ("none", "selective", "full"):
        model = build(architecture, hidden_dropout=0.1, attention_dropout=0.1)
        if mode != "none":
            apply_recompute(model, mode)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            total = loss(model)
        total.backward()
        results.append([total.detach(), *(parameter.grad for parameter in model.parameters())])
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.parametrize("mode", ["none", "full"])
def test_blocks_with_dropout_compile_whole_and_once(mode: str) -> None:
    fields = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "num_hidden_layers": 9}
    expected = [loss(build(**fields), keys) for keys in (KEYS, KEYS + 1)]
    model = build(**fields)
    if mode != "none":
        apply_recompute(model, mode)
    torch.compiler.reset()
    for layer in model.model.layers:
        layer.compile(fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(loss(model), expected[0])
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(loss(model, KEYS + 1), expected[1])
    torch.compiler.reset()


@pytest.mark.slow
def test_generated_code_drops_the_same() -> None:
    """At sizes that are no multiple of a vector, whose last numbers other code computes."""
    positions = torch.arange(5)
    draws = draws_of_blocks(KEYS, 2, positions, positions)[1]
    hidden = torch.ones(ROWS, 5, 37)

    def both(hidden: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        dropout = dropped_weights(draws, 2, 3, 0.3)
        assert dropout is not None
        return drop_hidden(hidden, draws, FEED_FORWARD, 0.3), dropout(torch.ones(ROWS, 3, 5, 13))

    torch.compiler.reset()
    compiled = torch.compile(both, fullgraph=True)
    for _ in range(100):  # what is written beyond the end is noticed sooner or later
        found = compiled(hidden, draws)
    for one, other in zip(found, both(hidden, draws), strict=True):
        assert torch.equal(one, other)
    torch.compiler.reset()
