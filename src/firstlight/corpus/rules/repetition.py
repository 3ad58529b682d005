"""Documents that repeat themselves: Gopher's repetition rules (Rae et al. 2021, appendix A.1.1, table A1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.config.rules import RepetitionRules
from firstlight.corpus.compiled import compiled
from firstlight.corpus.rules.characters import (
    after_last_solid,
    character_flags,
    count_characters,
    first_solid,
)
from firstlight.corpus.rules.judge import limits, verdict
from firstlight.corpus.rules.repeats import repeated_ngram_characters, repeated_pieces, top_ngram_characters
from firstlight.corpus.rules.words import words_of
from firstlight.corpus.step import Block, Result

_PIECES = (
    "empty",
    "duplicate paragraphs",
    "characters in duplicate paragraphs",
    "duplicate lines",
    "characters in duplicate lines",
)


class RepetitionStep:
    """Drops documents by the share of repeats in their characters; rules are tried in the order of the settings."""

    def __init__(self, config: RepetitionRules) -> None:
        self.config = config
        self._pieces = limits(
            config.max_duplicate_paragraphs,
            config.max_duplicate_paragraph_characters,
            config.max_duplicate_lines,
            config.max_duplicate_line_characters,
        )
        top, repeated = config.max_top_ngram, config.max_repeated_ngrams
        self._top = np.array(list(top), dtype=np.int64), limits(*top.values())
        self._repeated = np.array(list(repeated), dtype=np.int64), limits(*repeated.values())
        self._reasons = [*_PIECES, *(f"commonest {n}-gram" for n in top), *(f"repeated {n}-grams" for n in repeated)]

    def apply(self, block: Block) -> Result:
        """Reasons as "duplicate lines", "commonest 2-gram", "repeated 5-grams"."""
        words = words_of(block, self.config.words)
        codes = _judge(
            *block.utf8(),
            character_flags(),
            words.offsets,
            words.terms,
            words.fronts,
            words.characters,
            self._pieces,
            *self._top,
            *self._repeated,
        )
        return verdict(codes, self._reasons)


@compiled
def _judge(
    data: Any,
    offsets: Any,
    table: Any,
    bounds: Any,
    terms: Any,
    fronts: Any,
    characters: Any,
    pieces: Any,
    top: Any,
    top_limits: Any,
    repeated: Any,
    repeated_limits: Any,
) -> Any:
    codes = np.zeros(len(offsets) - 1, dtype=np.int8)
    for text in range(len(codes)):
        start, end = offsets[text], offsets[text + 1]
        codes[text] = _judge_pieces(data, start, end, table, pieces)
        if codes[text]:
            continue
        length = count_characters(data, start, end)
        words = slice(bounds[text], bounds[text + 1])
        codes[text] = _judge_ngrams(
            terms[words], fronts[words], characters[words], length, top, top_limits, repeated, repeated_limits
        )
    return codes


@compiled
def _judge_pieces(data: Any, start: int, end: int, table: Any, most: Any) -> int:
    length = count_characters(data, start, end)
    if length == 0:
        return 1
    first, last = first_solid(data, start, end, table), after_last_solid(data, start, end, table)
    count, repeated, characters = repeated_pieces(data, first, max(first, last), 2)
    if repeated / count > most[0]:
        return 2
    if characters / length > most[1]:
        return 3
    count, repeated, characters = repeated_pieces(data, start, end, 1)
    if repeated / count > most[2]:
        return 4
    if characters / length > most[3]:
        return 5
    return 0


@compiled
def _judge_ngrams(
    terms: Any,
    fronts: Any,
    characters: Any,
    length: int,
    top: Any,
    top_limits: Any,
    repeated: Any,
    repeated_limits: Any,
) -> int:
    hashes = terms * fronts
    code = 5
    for rule in range(len(top)):
        code += 1
        if len(hashes) >= top[rule]:
            share = top_ngram_characters(hashes, characters, top[rule]) / length
            if share > top_limits[rule]:
                return code
    for rule in range(len(repeated)):
        code += 1
        share = repeated_ngram_characters(terms, fronts, characters, repeated[rule]) / length
        if share > repeated_limits[rule]:
            return code
    return 0
