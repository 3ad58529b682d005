"""Generated text: the same as without a cache, whole characters only, cut as asked, and ending where it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstlight.evaluation.generation import choose, generate, generate_ids, stream_text
from firstlight.model import CausalLanguageModel
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

TEXTS = ["hello world, the cat sat on the mat. " * 4, "你好，世界 🎉🎉 naïve ünïcödé", "def f(x):\n    return x + 1\n"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 290)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> CausalLanguageModel:
    """Untrained, with 30 rows of padding: random bytes, which is the hard case for streaming."""
    shape = {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3}
    return CausalLanguageModel(tokenizer.vocab_size + 30, 32, 2, 4, **shape)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def likeliest_by_recomputation(model: CausalLanguageModel, prompt: list[int], count: int, limit: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids]))["logits"]
        assert logits is not None
        ids.append(int(logits[0, -1, :limit].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("prompt", ["the cat", "", "你好"])
def test_greedy_equals_recomputation_without_cache(
    model: CausalLanguageModel, tokenizer: Tokenizer, prompt: str
) -> None:
    prompt_ids = tokenizer.encode(prompt) or [tokenizer.eod_id]
    expected = likeliest_by_recomputation(model, prompt_ids, 30, tokenizer.vocab_size)
    settings = {"max_new_tokens": 30, "temperature": 0, "num_tokens": tokenizer.vocab_size}
    assert list(generate_ids(model, prompt_ids, **settings)) == expected
    if tokenizer.eod_id in expected:
        expected = expected[: expected.index(tokenizer.eod_id)]
    text = "".join(generate(model, tokenizer, prompt, max_new_tokens=30, temperature=0))
    assert tokenizer.decode(prompt_ids) + text == tokenizer.decode(prompt_ids + expected)


def test_a_seed_gives_the_same_text_and_another_seed_another(model: CausalLanguageModel, tokenizer: Tokenizer) -> None:
    one, again, other, free, free_again = (
        "".join(generate(model, tokenizer, "the", max_new_tokens=40, stop_at_eod=False, seed=seed))
        for seed in (1, 1, 2, None, None)
    )
    assert one == again
    assert len({one, other, free, free_again}) == 4


def test_padding_rows_are_never_drawn(model: CausalLanguageModel, tokenizer: Tokenizer) -> None:
    ids = generate_ids(model, [0], max_new_tokens=60, temperature=20.0, seed=0, num_tokens=tokenizer.vocab_size)
    assert max(ids) < tokenizer.vocab_size


def test_ends_at_the_end_of_the_document(tokenizer: Tokenizer) -> None:
    model = CausalLanguageModel(tokenizer.vocab_size, 32, 2, 4, tie_word_embeddings=True)
    ids = likeliest_by_recomputation(model, [40], 20, tokenizer.vocab_size)
    stop = ids[7]
    assert list(generate_ids(model, [40], max_new_tokens=20, temperature=0, stop_id=stop)) == ids[: ids.index(stop)]


def test_stops_where_the_positions_end_and_says_so(
    model: CausalLanguageModel, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = list(generate_ids(model, [1] * 60, max_new_tokens=100, temperature=0))
    assert len(ids) == 4
    assert "64 positions" in capsys.readouterr().err
    list(generate_ids(model, [1] * 60, max_new_tokens=4, temperature=0))
    assert capsys.readouterr().err == ""


def test_training_mode_comes_back(model: CausalLanguageModel, tokenizer: Tokenizer) -> None:
    model.train()
    pieces = generate(model, tokenizer, "the", max_new_tokens=5, stop_at_eod=False)
    next(pieces)
    assert torch.is_grad_enabled()
    pieces.close()  # type: ignore[attr-defined]
    assert model.training


@given(st.lists(st.integers(0, 280), max_size=40), st.text(max_size=6))
def test_pieces_join_to_the_decoded_text(tokenizer: Tokenizer, ids: list[int], prompt: str) -> None:
    prompt_ids = tokenizer.encode(prompt)
    pieces = list(stream_text(tokenizer, prompt_ids, ids))
    assert all(pieces)
    assert tokenizer.decode(prompt_ids) + "".join(pieces) == tokenizer.decode(prompt_ids + ids)


@given(st.text(min_size=1, max_size=20))
def test_pieces_are_whole_characters_given_as_soon_as_known(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    taken = 0

    def feed() -> Iterator[int]:
        nonlocal taken
        for token in ids:
            taken += 1
            yield token

    given_text = ""
    for piece in stream_text(tokenizer, [tokenizer.eod_id], feed()):
        given_text += piece
        assert text.startswith(given_text)
        if taken < len(ids):
            assert given_text == tokenizer.decode(ids[:taken]).removesuffix("\ufffd")
    assert given_text == text


def test_a_tokenizer_that_drops_the_first_space_keeps_the_later_ones() -> None:
    vocabulary = {"▁the": 0, "▁cat": 1, "s": 2, "</s>": 3, "<unk>": 4}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    tokenizer = Tokenizer(content, eod="</s>")
    assert list(stream_text(tokenizer, [0], [1, 2, 0, 1])) == [" cat", "s", " the", " cat"]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(1, 12), st.integers(0, 99))
def test_top_k_draws_among_the_k_likeliest(scores: list[float], top_k: int, seed: int) -> None:
    logits = torch.tensor(scores)
    chosen = choose(logits, 1.5, top_k, None, generator(seed))
    assert (logits > logits[chosen]).sum() < top_k


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 1), st.integers(0, 99))
def test_top_p_draws_from_the_smallest_set_that_reaches_p(scores: list[float], top_p: float, seed: int) -> None:
    logits = torch.tensor(scores)
    chosen = choose(logits, 1.0, None, top_p, generator(seed))
    probabilities = logits.softmax(0)
    assert probabilities[logits > logits[chosen]].sum() < top_p + 1e-5


def test_draws_follow_the_probabilities_at_the_temperature() -> None:
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0])
    draw = generator()
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[choose(logits, 0.7, None, None, draw)] += 1
    torch.testing.assert_close(counts / 4000, (logits / 0.7).softmax(0), rtol=0, atol=0.03)
    assert choose(logits, 0, None, None, draw) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"prompt": "x " * 100}, "shorten it by at least"),
    ],
)
def test_wrong_settings_are_named_at_the_call(
    model: CausalLanguageModel, tokenizer: Tokenizer, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        generate(model, tokenizer, **settings)  # type: ignore[arg-type]


def test_a_tokenizer_of_another_model_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="do not belong together"):
        generate(CausalLanguageModel(50, 32, 1, 4), tokenizer, "a")
