"""Hides tokens for a model to find again: masked language modelling (Devlin et al. 2018, section 3.1).

A share of a sample's tokens is chosen: single ones, whole words, or runs of words (Joshi et al. 2020,
arXiv:1907.10529). Of the chosen most become the mask token, some a random one, and some stay. Every draw is a function
of (seed, sample number), so that a sample is hidden alike in any batch, on any rank and after any resume.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import MaskingConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.draws import MASK_64, Words, below, choices, draw, fractions
from firstlight.tokens.permutation import derive_key
from firstlight.tokens.tokenizer import KNOWN_MASK, Tokenizer
from firstlight.tokens.words import word_numbers

IGNORED = -100
"""Target of a position that is not to be predicted."""
LONGEST_SPAN = 10
"""Words of the longest run (Joshi et al. 2020, section 3.1)."""

_ORDINARY, _BEGINS, _ENDS = (np.uint8(1 << bit) for bit in range(3))


class Masking:
    """A function from samples to what a model reads of them and what it is to find."""

    def __init__(self, config: MaskingConfig, tokenizer: Tokenizer, seed: int) -> None:
        """seed: any integer; other seeds hide other tokens.

        Raises ConfigError for a tokenizer without a mask token, or without known words where the unit needs them.
        """
        if tokenizer.mask_id is None:
            raise ConfigError(
                f"{tokenizer.name}: has no mask token, which model.objective masked needs; name one as "
                f'"mask_token" in its tokenizer_config.json, use a tokenizer that has one of {", ".join(KNOWN_MASK)}, '
                "or let Firstlight train one."
            )
        self.config = config
        self.mask_id = tokenizer.mask_id
        self._ordinary_ids = tokenizer.ordinary_ids
        self._facts = np.zeros(tokenizer.vocab_size, dtype=np.uint8)
        self._facts[self._ordinary_ids] = _ORDINARY
        if config.unit != "token":
            try:
                begins, ends = tokenizer.word_edges
            except DataError:
                raise ConfigError(
                    f"{tokenizer.name}: masking.unit is {config.unit}, and words are known of byte-level, "
                    "SentencePiece and WordPiece tokenizers only; use masking.unit=token."
                ) from None
            self._facts |= begins * _BEGINS | ends * _ENDS
        self._spans = SpanLengths(config.mean_span) if config.unit == "span" else None
        self._keys = {name: derive_key(seed, "mask", name) for name in ("choice", "start", "spare", "fate", "token")}

    def __call__(self, rows: NDArray[np.int64], first_sample: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide tokens of samples `first_sample` … as the configuration says.

        rows: [n, length], of ids below the tokenizer's size. Returns (inputs, targets), both [n, length]: targets hold
        the ids of the chosen tokens and -100 elsewhere. Special tokens are never chosen; of a row that has others at
        least one is.
        """
        samples = first_sample + np.arange(len(rows))
        facts = self._facts.take(rows)
        ordinary = facts & _ORDINARY != 0
        units, groups, chosen = self._chosen(samples, facts)
        chosen &= ordinary
        self._choose_spare(samples, ordinary, units, chosen)
        inputs, targets = rows.flatten(), np.full(rows.size, IGNORED)
        places = np.flatnonzero(chosen)
        targets[places] = inputs[places]
        row, column = np.divmod(places, rows.shape[1])
        fates = draw(self._streams("fate", samples)[row], groups[row, column])
        hidden = below(fates, self.config.masked)
        inputs[places[hidden]] = self.mask_id
        changed = below(fates, self.config.masked + self.config.random) & ~hidden
        words = draw(self._streams("token", samples)[row[changed]], column[changed])
        inputs[places[changed]] = self._ordinary_ids[choices(words, len(self._ordinary_ids))]
        return inputs.reshape(rows.shape), targets.reshape(rows.shape)

    def _chosen(
        self, samples: NDArray[np.int64], facts: NDArray[np.uint8]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.bool_]]:
        """Of every token, [n, length] each: its unit's number, the number that it shares its fate with, and whether its
        unit is chosen."""
        columns = np.broadcast_to(np.arange(facts.shape[1]), facts.shape)
        streams = self._streams("choice", samples)[:, None]
        if self.config.unit == "token":
            return columns, columns, below(draw(streams, columns[:1]), self.config.fraction)
        words = word_numbers(facts & _BEGINS != 0, facts & _ENDS != 0)
        count = 1 + int(words[:, -1].max(initial=0))
        if self._spans is None:
            chosen = below(draw(streams, np.arange(count)[None]), self.config.fraction)
            return words, columns, _of_words(chosen, words)
        inside = below(draw(self._keys["start"], samples), self.config.fraction)
        edges = self._spans.edges(streams, inside, self.config.fraction, count)
        groups = _of_words(edges, words)
        return words, groups, groups % 2 == 1

    def _choose_spare(
        self,
        samples: NDArray[np.int64],
        ordinary: NDArray[np.bool_],
        units: NDArray[np.integer],
        chosen: NDArray[np.bool_],
    ) -> None:
        """Choose one unit, that of a token drawn evenly, in rows of which none was chosen."""
        for row in np.flatnonzero(ordinary.any(axis=1) & ~chosen.any(axis=1)):
            columns = np.flatnonzero(ordinary[row])
            word = draw(self._keys["spare"], samples[row : row + 1])
            column = columns[choices(word, len(columns))]
            chosen[row] = ordinary[row] & (units[row] == units[row, column])

    def _streams(self, purpose: str, samples: NDArray[np.int64]) -> Words:
        """A key for each sample: [n]."""
        return draw(self._keys[purpose], samples)


class SpanLengths:
    """Runs of words and the gaps between them, as a renewal process that has always been going on.

    Runs have lengths 1 … 10 of a geometric distribution cut off there, gaps at least one word. Both begin so that every
    word, the first as the last, is in a run with the same probability.
    """

    def __init__(self, mean: float) -> None:
        """mean: expected words of a run, from 1 to 5."""
        self.mean = mean
        weights = _decay_of_mean(mean) ** np.arange(LONGEST_SPAN)
        reached = np.cumsum(weights[::-1])[::-1]  # in proportion to P(length ≥ 1), P(length ≥ 2), …
        self._lengths = _thresholds(weights)
        self._rests = _thresholds(reached)

    def edges(self, streams: Words, inside: NDArray[np.bool_], fraction: float, words: int) -> NDArray[np.int64]:
        """Number of runs' beginnings and ends up to each word, itself included: [n, words]; odd within a run.

        streams: [n, 1], keys of the draws. inside: [n], whether the first word is in a run (with probability
        `fraction`).
        """
        per_gap = fraction / (self.mean * (1 - fraction))  # 1 / expected words of a gap
        cycles = 4 + math.ceil(2 * words * fraction / self.mean)
        ends = self._ends(draw(streams, np.arange(2 * cycles)[None]), inside, per_gap, words)
        while ends[:, -1].min(initial=words) < words:
            cycles *= 2
            ends = self._ends(draw(streams, np.arange(2 * cycles)[None]), inside, per_gap, words)
        marks = np.zeros((len(ends), words + 1), dtype=bool)
        np.put_along_axis(marks, np.minimum(ends, words), True, axis=1)
        return np.cumsum(marks[:, :words], axis=1)

    def _ends(self, drawn: Words, inside: NDArray[np.bool_], per_gap: float, words: int) -> NDArray[np.int64]:
        """The word at which each gap and run ends, in turn: [n, 2 × cycles]. The first gap is empty where the first
        word is inside a run, of which the rest is left."""
        gaps = np.log1p(-fractions(drawn[:, 0::2])) / math.log1p(-per_gap)
        durations = np.empty(drawn.shape, dtype=np.int64)
        durations[:, 0::2] = 1 + np.minimum(gaps, words)
        durations[:, 1::2] = 1 + np.searchsorted(self._lengths, drawn[:, 1::2], side="right")
        rest = 1 + np.searchsorted(self._rests, drawn[:, 1], side="right")
        durations[inside, 0] = 0
        durations[inside, 1] = rest[inside]
        return np.cumsum(durations, axis=1)


def _of_words(values: NDArray[Any], words: NDArray[np.int32]) -> NDArray[Any]:
    """What each word has, [n, words], for each of its tokens: [n, length]. (`take_along_axis`, faster.)"""
    starts = np.arange(len(words))[:, None] * values.shape[1]
    return values.reshape(-1).take(words + starts)


def _thresholds(weights: NDArray[np.floating]) -> Words:
    """Where in the 64-bit numbers each of some outcomes but the last ends."""
    shares = np.cumsum(weights)[:-1] / weights.sum()
    return np.array([min(int(share * 2**64), MASK_64) for share in shares.tolist()], dtype=np.uint64)


def _decay_of_mean(mean: float) -> float:
    """The q of weights q^(k − 1), k = 1 … 10, whose expected k is `mean`; by bisection."""
    lengths = np.arange(1, LONGEST_SPAN + 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = middle ** (lengths - 1)
        if (weights * lengths).sum() > mean * weights.sum():
            high = middle
        else:
            low = middle
    return low
