"""Weights from sizes: temperature flattens them, a proposal never exceeds the epochs allowed and wastes nothing."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.mixture import shares
from firstlight.tokens.mixture_tools import named_tokens, propose_weights, temperature_weights, token_count
from firstlight.tokens.tokenize import tokenize_files

sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**13), min_size=1)


@given(sizes=sizes, temperature=st.floats(0.3, 50))
def test_temperature_weights_are_powers_of_sizes(sizes, temperature):
    weights = temperature_weights(sizes, temperature)
    assert math.fsum(weights.values()) == pytest.approx(1)
    for a in sizes:
        for b in sizes:
            assert weights[a] / weights[b] == pytest.approx((sizes[a] / sizes[b]) ** (1 / temperature), rel=1e-6)


def test_temperature_1_keeps_proportions_and_infinity_levels_them():
    assert temperature_weights({"a": 900, "b": 100}, 1) == pytest.approx({"a": 0.9, "b": 0.1})
    assert temperature_weights({"a": 900, "b": 100}, math.inf) == {"a": 0.5, "b": 0.5}


@given(sizes=sizes, share=st.floats(0.001, 1), max_epochs=st.floats(0.5, 20), data=st.data())
def test_a_proposal_stays_within_the_epochs_and_keeps_wanted_ratios_where_it_can(sizes, share, max_epochs, data):
    limit = Fraction(repr(max_epochs))
    budget = int(share * max_epochs * sum(sizes.values()))
    assume(budget > 0)
    wanted = {source: data.draw(st.floats(0.01, 10)) for source in sizes}
    weights = propose_weights(sizes, budget, max_epochs, wanted)
    assert sum(weights.values()) == 1
    free = {}
    for source, weight in weights.items():
        supply = limit * sizes[source]
        assert weight * budget <= supply
        if weight * budget < supply:
            free[source] = weight / shares(wanted)[source]
    assert len(set(free.values())) <= 1
    # A capped source has less than the others' ratio: it was capped for want of text alone.
    for source, weight in weights.items():
        if source not in free and free:
            assert weight / shares(wanted)[source] <= next(iter(free.values()))


def test_without_wishes_it_is_uniform_as_far_as_text_goes():
    assert propose_weights({"a": 10**9, "b": 10**9, "c": 10**6}, 10**7) == dict.fromkeys("abc", Fraction(1, 3))
    weights = propose_weights({"a": 10**9, "b": 10**9, "c": 10**6}, 10**8)
    assert weights == {"a": Fraction(48, 100), "b": Fraction(48, 100), "c": Fraction(4, 100)}


def test_a_budget_beyond_all_text_is_refused_with_the_arithmetic():
    with pytest.raises(ConfigError, match=r"10B tokens is more than .* 4 × 2B = 8B tokens; .* allow 5 epochs"):
        propose_weights({"a": 10**9, "b": 10**9}, 10**10)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: temperature_weights({"a": 1}, 0), "temperature is 0"),
        (lambda: temperature_weights({"a": 1}, math.nan), "temperature is nan"),
        (lambda: temperature_weights({"a": 0}, 1), "'a' has 0 tokens"),
        (lambda: temperature_weights({}, 1), "no sources"),
        (lambda: temperature_weights({"a": 1, "b": 10**9}, 0.01), "weight of 'a' is too small"),
        (lambda: propose_weights({"a": 1}, 0), "budget is 0"),
        (lambda: propose_weights({"a": 1}, 1, math.inf), "max_epochs is inf"),
        (lambda: propose_weights({"a": 1}, 1, 4, {"b": 1}), "names 'b'"),
        (lambda: propose_weights({"a": 1}, 1, 4, {"a": -1}), "a weight is above 0"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(ConfigError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("1T", 10**12), ("26b", 26 * 10**9), ("1.5M", 1_500_000), ("10k", 10_000), ("300_000", 300_000), ("1e12", 10**12)],
)
def test_numbers_of_tokens_are_read_as_people_write_them(text, tokens):
    assert token_count(text) == tokens
    assert named_tokens([f"web={text}"]) == {"web": tokens}


@pytest.mark.parametrize("text", ["", "T", "0", "-1B", "1.5", "1Q", "nan", "inf", "1 B 2", "1e999999999"])
def test_what_is_no_number_of_tokens_is_refused(text):
    with pytest.raises(ConfigError, match="no number of tokens"):
        token_count(text)


def test_sources_are_named_once_with_tokens_or_a_folder(tmp_path):
    assert named_tokens(["web=7B", "books=5M"]) == {"web": 7 * 10**9, "books": 5 * 10**6}
    for wrong, sentence in (("web", "NAME=TOKENS or NAME=FOLDER"), ("web=no/such", "neither a number of tokens")):
        with pytest.raises(ConfigError, match=sentence):
            named_tokens([wrong])
    with pytest.raises(ConfigError, match="'web' is given twice"):
        named_tokens(["web=7B", "web=5M"])
    with pytest.raises(DataError, match=r"no dataset\.json in this folder"):
        named_tokens([f"web={tmp_path}"])


def test_a_token_dataset_counts_its_training_tokens(tiny_corpus, tiny_tokenizer, tmp_path):
    file = next(iter(tiny_corpus.values()))
    dataset = tokenize_files([str(file)], tiny_tokenizer, tmp_path / "tokens", source="web", validation_fraction=0.2)
    assert named_tokens([f"web={tmp_path / 'tokens'}"]) == {"web": dataset.splits["train"].num_tokens}
