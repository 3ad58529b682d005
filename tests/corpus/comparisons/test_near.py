"""Near-duplicates are found as often as their similarity says, others are not, and the decision is the texts' alone."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("daft")

from firstlight.config.duplicates import NearDuplicates
from firstlight.corpus.comparisons import frames, near
from firstlight.corpus.comparisons.minhash import hash_ngrams, permutations, signatures
from firstlight.corpus.comparisons.units import character_table, hash_units

DOCUMENTS = 60
KINDS = {
    "exact": lambda writer, words: words,
    "1 %": lambda writer, words: writer.edited(words, 0.01),
    "2 %": lambda writer, words: writer.edited(words, 0.02),
    "3 %": lambda writer, words: writer.edited(words, 0.03),
    "5 %": lambda writer, words: writer.edited(words, 0.05),
    "truncated": lambda writer, words: words[: round(0.8 * len(words))],
    "boilerplate": lambda writer, words: [*writer.words[:10], *words, *writer.words[10:20]],
}
FLOORS = {"exact": 1.0, "1 %": 0.95, "2 %": 0.85, "3 %": 0.5, "boilerplate": 0.9, "truncated": 0.75}


def ngrams(text: str, size: int = 5) -> set[int]:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    units, grams = np.zeros(len(data), np.uint64), np.zeros(len(data), np.uint64)
    count = hash_units(data, 0, len(data), character_table(True), units)
    return set(grams[: hash_ngrams(units, count, size, grams)].tolist())


def jaccard(one: str, other: str) -> float:
    first, second = ngrams(one), ngrams(other)
    return len(first & second) / len(first | second)


def planted(writer: Any) -> tuple[list[str], dict[str, list[str]]]:
    originals = [writer.some(writer.draw.randint(250, 500)) for _ in range(DOCUMENTS)]
    copies = {kind: [writer.text(change(writer, words)) for words in originals] for kind, change in KINDS.items()}
    return [writer.text(words) for words in originals], copies


@pytest.mark.parametrize("chinese", [False, True])
def test_planted_duplicates_are_found_as_theory_says(
    compare: Callable[..., Any], writer: Callable[..., Any], chinese: bool
) -> None:
    originals, copies = planted(writer(11, chinese))
    for kind, texts in copies.items():
        compared = compare(NearDuplicates(keep="first"), [originals, texts])
        assert not any(compared.dropped[:DOCUMENTS]), "originals are not like each other"
        recall = sum(compared.dropped[DOCUMENTS:]) / DOCUMENTS
        chances = [1 - (1 - jaccard(a, b) ** 8) ** 14 for a, b in zip(originals, texts, strict=True)]
        deviation = math.sqrt(sum(p * (1 - p) for p in chances)) / DOCUMENTS
        assert abs(recall - sum(chances) / DOCUMENTS) <= 4 * deviation + 0.01, kind
        assert recall >= FLOORS.get(kind, 0.0), kind


def test_other_texts_stay(compare: Callable[..., Any], writer: Callable[..., Any]) -> None:
    texts = [writer(seed, chinese).text(writer(seed, chinese).some(200)) for seed in range(100) for chinese in (0, 1)]
    compared = compare(NearDuplicates(), [texts])
    assert not any(compared.dropped)
    assert compared.figures["candidate_pairs"] == 0


def test_how_the_corpus_is_cut_and_ordered_changes_no_cluster(
    compare: Callable[..., Any], writer: Callable[..., Any]
) -> None:
    originals, copies = planted(writer(12, False))
    texts = [*originals[:30], *copies["1 %"][:30], *copies["truncated"][:30]]
    whole = compare(NearDuplicates(), [texts])
    cut = compare(NearDuplicates(), [texts[:7], [], texts[7:50], texts[50:]])
    assert cut.dropped == whole.dropped
    assert sum(whole.dropped) > 50
    order = list(range(90))
    random.Random(5).shuffle(order)
    shuffled = compare(NearDuplicates(), [[texts[n] for n in order]])
    for name in ("dropped", "clusters", "largest_cluster", "duplicate_pairs"):
        assert shuffled.figures[name] == whole.figures[name] or name == "duplicate_pairs"
    kept = {texts[n] for n, dropped in enumerate(whole.dropped) if not dropped}
    assert {texts[n] for n, dropped in zip(order, shuffled.dropped, strict=True) if not dropped} == kept


def test_the_longest_stays_or_the_first(compare: Callable[..., Any], writer: Callable[..., Any]) -> None:
    words = writer(13, False).some(300)
    texts = [" ".join(part) for part in (words[:295], words, words[:298], words)]
    assert compare(NearDuplicates(), [texts]).dropped == [True, False, True, True]
    assert compare(NearDuplicates(keep="first"), [texts]).dropped == [False, True, True, True]


def test_verification_takes_chains_apart(compare: Callable[..., Any], writer: Callable[..., Any]) -> None:
    words = writer(14, False).some(1000)
    chain = [" ".join(words[30 * n : 30 * n + 300]) for n in range(20)]
    twins = [" ".join(writer(15, False).some(300))] * 3
    loose = compare(NearDuplicates(), [chain + twins])
    strict = compare(NearDuplicates(min_similarity=0.95), [chain + twins])
    assert jaccard(chain[0], chain[1]) < 0.85
    assert loose.figures["largest_cluster"] > 10 >= 3 == strict.figures["largest_cluster"]
    assert strict.dropped == [False] * 21 + [True] * 2
    assert strict.figures["duplicate_pairs"] < strict.figures["candidate_pairs"]


def test_estimated_similarity_is_near_the_exact_one(writer: Callable[..., Any]) -> None:
    originals, copies = planted(writer(16, True))
    drawn = permutations(112, 1)
    for kind in ("1 %", "3 %", "5 %"):
        errors = []
        for pair in zip(originals[:20], copies[kind][:20], strict=True):
            data = [text.encode() for text in pair]
            offsets = np.cumsum([0, *map(len, data)])
            minima, _ = signatures(np.frombuffer(b"".join(data), np.uint8), offsets, character_table(True), 5, drawn)
            errors.append(float((minima[0] == minima[1]).mean()) - jaccard(*pair))
        assert abs(sum(errors) / 20) < 4 * 0.5 / math.sqrt(112 * 20), kind
        assert max(map(abs, errors)) < 5 * 0.5 / math.sqrt(112), kind


def test_excluded_documents_are_not_there(compare: Callable[..., Any], writer: Callable[..., Any]) -> None:
    words = writer(17, False).some(300)
    texts = [" ".join(words), " ".join(words[:299]), " ".join(words[:298]), "something else"]
    assert compare(NearDuplicates(), [texts]).dropped == [False, True, True, False]
    assert compare(NearDuplicates(), [texts], excluded=[0]).dropped == [False, False, True, False]
    assert compare(NearDuplicates(), [texts], excluded=[0, 2]).dropped == [False] * 4


def test_passes_change_nothing(
    compare: Callable[..., Any], writer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    originals, copies = planted(writer(18, False))
    config = NearDuplicates(min_similarity=0.5)
    units = [originals, copies["2 %"], copies["exact"]]

    def run() -> tuple[int, Any]:
        return len(list(near.NearComparison(config)._passes(3 * DOCUMENTS))), compare(config, units)

    (one, once), _ = run(), monkeypatch.setattr(near, "BAND_ROWS", 400)
    (seven, bands), _ = run(), monkeypatch.setattr(frames, "ROWS_AT_ONCE", 70)
    many, ranges = run()
    assert (one, seven, many) == (1, 7, 21)
    assert once.figures == bands.figures == ranges.figures
    written = [(run.folder / "dropped-00000.parquet").read_bytes() for run in (once, bands, ranges)]
    assert written[0] == written[1] == written[2]
    assert once.figures["dropped"] >= DOCUMENTS


def test_odd_documents(compare: Callable[..., Any]) -> None:
    texts = ["", " .\n", "word", "Word!", "a\0b", "a b", "👍👍", "👍👍 ", "今", "one two three four", "one two three"]
    compared = compare(NearDuplicates(keep="first"), [texts, texts])
    assert compared.dropped[: len(texts)] == [False, False, False, True, False, True, False, True, False, False, False]
    assert compared.dropped[len(texts) :] == [False, False] + [True] * 9
    assert compare(NearDuplicates(), [["", ""]]).figures["dropped"] == 0
    assert compare(NearDuplicates(), []).dropped == []


def test_settings_change_signals(writer: Callable[..., Any]) -> None:
    assert not np.array_equal(permutations(8, 1), permutations(8, 2))
    assert np.array_equal(permutations(8, 1)[0] & np.uint64(1), np.ones(8, np.uint64))
    text = writer(19, False).text(writer(19, False).some(100))
    assert len(ngrams(text, 3) & ngrams(text, 5)) == 0
