"""A sample by mixture: the number asked for, every source its share, nothing twice, nothing silent."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.documents import Document
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.mixture import apportion, shares
from firstlight.tokens.sampling import sample_with_mixture

names = st.sampled_from(["web", "books", "code", "wikipedia", "academic"])
weights = st.dictionaries(names, st.decimals("0.001", "9.999", places=3).map(float), min_size=1)
seeds = st.integers(0, 2**63)


def sources_of(sizes):
    return {source: [(source, number) for number in range(size)] for source, size in sizes.items()}


@given(weights=weights, total=st.integers(0, 10**13))
def test_a_total_is_divided_without_remainder_and_within_one_of_every_share(weights, total):
    exact = shares(weights)
    counts = apportion(exact, total)
    assert sum(counts.values()) == total
    for source, share in exact.items():
        assert abs(counts[source] - share * total) < 1


@given(weights=weights, total=st.integers(0, 300), seed=seeds)
def test_it_returns_the_number_asked_for_in_the_shares_asked_for_and_nothing_twice(weights, total, seed):
    sample = sample_with_mixture(sources_of(dict.fromkeys(weights, 300)), weights, total, seed)
    assert len(sample) == total == len(set(sample))
    counts = Counter(source for source, _ in sample)
    for source, share in shares(weights).items():
        assert abs(counts[source] - share * total) < 1


@given(
    weights=weights, sizes=st.lists(st.integers(1, 40), min_size=5, max_size=5), total=st.integers(0, 400), seed=seeds
)
def test_a_repeated_source_is_gone_over_evenly(weights, sizes, total, seed):
    sources = sources_of(dict(zip(weights, sizes, strict=False)))
    sample = sample_with_mixture(sources, weights, total, seed, repeat=True)
    assert len(sample) == total
    drawn = Counter(sample)
    for items in sources.values():
        times = [drawn[item] for item in items]
        assert max(times) - min(times) <= 1


@given(seed=seeds)
def test_the_order_of_sources_does_not_matter_and_the_seed_does(seed):
    sources = sources_of({"web": 50, "books": 70})
    mixture = {"web": 0.3, "books": 0.7}
    sample = sample_with_mixture(sources, mixture, 60, seed)
    backwards = {source: mixture[source] for source in reversed(mixture)}
    assert sample == sample_with_mixture(dict(reversed(sources.items())), backwards, 60, seed)
    assert sample != sample_with_mixture(sources, mixture, 60, seed + 1)


def test_sources_are_mixed_and_every_pass_has_its_own_order():
    sources = sources_of({"web": 100, "books": 1000})
    sample = sample_with_mixture(sources, {"web": 1, "books": 1}, 1000, repeat=True)
    assert 180 < sum(source == "web" for source, _ in sample[:500]) < 320
    web = sample_with_mixture({"web": sources["web"]}, {"web": 1}, 100)
    assert web != sorted(web)


def test_documents_are_grouped_by_their_source():
    documents = [{"text": str(n), "metadata": {"source": "web" if n % 3 else "books"}} for n in range(90)]
    sample = sample_with_mixture(iter(documents), {"web": 0.5, "books": 0.5}, 40)
    assert Counter(document["metadata"]["source"] for document in sample) == {"web": 20, "books": 20}
    own = [Document(document["text"], document["metadata"]) for document in documents]
    assert [item.text for item in sample_with_mixture(own, {"web": 1, "books": 1}, 40)] == [d["text"] for d in sample]


def test_a_small_source_is_an_error_with_the_arithmetic_or_repeated_with_a_warning(capsys):
    sources = sources_of({"web": 100, "books": 10})
    mixture = {"web": 0.75, "books": 0.25}
    with pytest.raises(DataError, match=r"'books' has 10 items, but its share of 100 samples is 25 \(2.5 epochs\)"):
        sample_with_mixture(sources, mixture, 100)
    assert capsys.readouterr().err == ""
    assert len(sample_with_mixture(sources, mixture, 100, repeat=True)) == 100
    assert "gone over 2.5 times" in " ".join(capsys.readouterr().err.split())


def test_the_number_that_the_error_advises_can_be_drawn():
    sources = sources_of({"web": 100, "books": 10})
    assert len(sample_with_mixture(sources, {"web": 0.75, "books": 0.25}, 40)) == 40
    with pytest.raises(DataError, match=r"'books' has 10 items.*about 40 samples at most"):
        sample_with_mixture(sources, {"web": 0.75, "books": 0.25}, 1000)  # both are too small, books more so


@pytest.mark.parametrize(
    ("mixture", "number", "error", "sentence"),
    [
        ({"web": 1, "bokos": 1}, 10, ConfigError, "names 'bokos'.*Did you mean 'books'"),
        ({"web": 0}, 10, ConfigError, "a weight is above 0"),
        ({}, 10, ConfigError, "mixture_weights is empty"),
        ({"web": 1}, -1, ConfigError, "num_samples is -1"),
        ({"web": 1}, 1.5, ConfigError, "num_samples is 1.5"),
        ({"empty": 1}, 1, DataError, "'empty' has 0 items"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(mixture, number, error, sentence):
    sources = sources_of({"web": 100, "books": 10, "empty": 0})
    for repeat in (False, True):
        with pytest.raises(error, match=sentence):
            sample_with_mixture(sources, mixture, number, repeat=repeat)


def test_a_document_without_a_source_is_named():
    with pytest.raises(DataError, match=r"document 2 has no metadata.source"):
        sample_with_mixture([{"metadata": {"source": "web"}}, {"text": "x"}], {"web": 1}, 1)


def test_weights_are_exact_decimals():
    counts = apportion(shares({"a": 0.29, "b": 0.71}), 100)
    assert counts == {"a": 29, "b": 71}
    assert apportion({"a": Fraction(1, 3), "b": Fraction(1, 3), "c": Fraction(1, 3)}, 10) == {"a": 4, "b": 3, "c": 3}
