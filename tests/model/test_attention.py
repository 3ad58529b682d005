"""Attention, its masks and rotary positions against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstlight.model.attention import attend, attend_in_blocks, repeat_groups
from firstlight.model.masks import attention_mask, positions_in_documents
from firstlight.model.rope import rope_table, rotate

LENGTHS = st.integers(1, 9)


def heads(batch: int, number: int, length: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, number, length, width, generator=torch.Generator().manual_seed(seed))


def softmax_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor
) -> torch.Tensor:
    """The formula, with every query head reading group head // (heads / groups)."""
    size = query.shape[1] // key.shape[1]
    rows = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // size].transpose(1, 2) / math.sqrt(query.shape[-1])
        rows.append(scores.masked_fill(~allowed, -math.inf).softmax(-1) @ value[:, head // size])
    return torch.stack(rows, dim=1)


@given(LENGTHS, st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.booleans())
def test_attend_is_softmax_attention(length: int, numbers: tuple[int, int], masked: bool) -> None:
    query, key, value = (heads(2, n, length, seed=s) for s, n in enumerate((numbers[0], numbers[1], numbers[1])))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    result = attend(query, key, value, causal[None, None] if masked else None)
    torch.testing.assert_close(result, softmax_attention(query, key, value, causal), rtol=1e-4, atol=1e-5)
    copied = attend(query, repeat_groups(key, numbers[0]), repeat_groups(value, numbers[0]), None)
    torch.testing.assert_close(result, copied, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 20), st.integers(1, 9))
def test_attention_in_blocks_is_attention_with_the_same_gradients(length: int, block_size: int) -> None:
    results = []
    for function in (attend_in_blocks, attend):
        inputs = [heads(2, 3, length, seed=seed).requires_grad_() for seed in range(3)]
        result = function(*inputs, block_size) if function is attend_in_blocks else function(*inputs, None)
        (result * heads(2, 3, length, seed=4)).sum().backward()
        results.append([result.detach(), *(tensor.grad for tensor in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(LENGTHS)
def test_a_single_query_sees_all_cached_keys(length: int) -> None:
    query, key, value = heads(1, 4, 1), heads(1, 2, length, seed=1), heads(1, 2, length, seed=2)
    allowed = torch.ones(1, length, dtype=torch.bool)
    torch.testing.assert_close(attend(query, key, value, None), softmax_attention(query, key, value, allowed))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_document_mask_is_causal_within_documents(sizes: list[int]) -> None:
    document = [number for number, size in enumerate(sizes) for _ in range(size)]
    length = len(document)
    mask = attention_mask(torch.arange(length), length, document_ids=torch.tensor([document]))
    expected = [[j <= i and document[i] == document[j] for j in range(length)] for i in range(length)]
    assert mask.tolist() == [[expected]]
    positions = [place for size in sizes for place in range(size)]
    assert positions_in_documents(torch.tensor([document])).tolist() == [positions]


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_padding_mask_leaves_no_row_empty(kept: list[bool]) -> None:
    length = len(kept)
    mask = attention_mask(torch.arange(length), length, padding_mask=torch.tensor([kept]).long())
    expected = [[i == j or (j < i and kept[j]) for j in range(length)] for i in range(length)]
    assert mask.tolist() == [[expected]]


@given(LENGTHS, st.sampled_from([(4, 4), (4, 2)]), st.booleans())
def test_without_causality_every_position_sees_every_other(length: int, numbers: tuple[int, int], masked: bool) -> None:
    query, key, value = (heads(2, n, length, seed=s) for s, n in enumerate((numbers[0], numbers[1], numbers[1])))
    everything = torch.ones(length, length, dtype=torch.bool)
    result = attend(query, key, value, everything[None, None] if masked else None, causal=False)
    torch.testing.assert_close(result, softmax_attention(query, key, value, everything), rtol=1e-4, atol=1e-5)


@given(LENGTHS, st.integers(1, 12), st.booleans(), st.lists(st.integers(0, 1), min_size=9, max_size=9))
def test_a_window_bounds_the_distance(length: int, window: int, causal: bool, numbers: list[int]) -> None:
    documents = sorted(numbers[:length])
    mask = attention_mask(
        torch.arange(length), length, causal=causal, window=window, document_ids=torch.tensor([documents])
    )

    def sees(i: int, j: int) -> bool:
        near = 0 <= i - j < window if causal else abs(i - j) <= window // 2
        return near and documents[i] == documents[j]

    assert mask.tolist() == [[[[sees(i, j) for j in range(length)] for i in range(length)]]]


@given(st.integers(0, 5), LENGTHS)
def test_queries_after_a_cache_see_it_and_themselves(cached: int, new: int) -> None:
    mask = attention_mask(torch.arange(cached, cached + new), cached + new)
    assert mask.tolist() == [[[[j <= cached + i for j in range(cached + new)] for i in range(new)]]]


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500))
def test_rotated_products_depend_on_distance_only(first: int, second: int, shift: int) -> None:
    query, key = heads(1, 1, 1, 16), heads(1, 1, 1, 16, seed=1)

    def product(at: int, other: int) -> torch.Tensor:
        tables = (rope_table(torch.tensor([place]), 16, 10000.0) for place in (at, other))
        return (rotate(query, next(tables)) * rotate(key, next(tables))).sum()

    torch.testing.assert_close(product(first, second), product(first + shift, second + shift), rtol=1e-3, atol=1e-3)


def test_rotation_keeps_length_and_turns_by_the_formula() -> None:
    vectors = heads(1, 1, 5, 6)
    turned = rotate(vectors, rope_table(torch.arange(5), 6, 100.0))
    torch.testing.assert_close(turned.norm(dim=-1), vectors.norm(dim=-1))
    assert torch.equal(turned[0, 0, 0], vectors[0, 0, 0])
    # eq. 34 as complex numbers: channel i is the real part, channel i + 3 the imaginary part
    for place in range(5):
        for channel in range(3):
            pair = complex(vectors[0, 0, place, channel], vectors[0, 0, place, channel + 3])
            angle = place * 100.0 ** (-2 * channel / 6)
            expected = pair * complex(math.cos(angle), math.sin(angle))
            assert turned[0, 0, place, channel].item() == pytest.approx(expected.real, abs=1e-5)
            assert turned[0, 0, place, channel + 3].item() == pytest.approx(expected.imag, abs=1e-5)
