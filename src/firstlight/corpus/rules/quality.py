"""Documents whose words are not those of prose: Gopher's quality rules (Rae et al. 2021, appendix A.1.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.config.rules import QualityRules
from firstlight.corpus.compiled import compiled
from firstlight.corpus.rules.characters import LINE_END, SPACE, character_flags, decode, flags_at
from firstlight.corpus.rules.judge import limits, verdict
from firstlight.corpus.rules.words import HAS_LETTER, SOLID, word_hash, words_of
from firstlight.corpus.step import Block, Result

_REASONS = (
    "few words",
    "many words",
    "short words",
    "long words",
    "many # signs",
    "many ellipses",
    "bullet lines",
    "lines end in ellipses",
    "few alphabetic words",
    "few stop words",
)
_HASH, _HYPHEN, _DOT, _BULLET, _ELLIPSIS = map(ord, "#-.•…")


class QualityStep:
    """Drops documents by counts of words, signs and lines; rules are tried in the order of the settings."""

    def __init__(self, config: QualityRules) -> None:
        self.config = config
        self._limits = limits(
            config.min_words,
            config.max_words,
            config.min_mean_word_length,
            config.max_mean_word_length,
            config.max_hashes_per_word,
            config.max_ellipses_per_word,
            config.max_bullet_lines,
            config.max_ellipsis_lines,
            config.min_alphabetic_words,
            config.min_stop_words,
        )
        self._stop_words = np.array([word_hash(word) for word in dict.fromkeys(config.stop_words)], dtype=np.uint64)

    def apply(self, block: Block) -> Result:
        """Reasons as "few words", "bullet lines", "few stop words". A document without words has few words."""
        words = words_of(block, self.config.words)
        codes = _judge(
            *block.utf8(),
            character_flags(),
            words.offsets,
            words.characters,
            words.kinds,
            words.terms,
            words.fronts,
            self._stop_words,
            self._limits,
        )
        return verdict(codes, _REASONS)


@compiled
def _judge(
    data: Any,
    offsets: Any,
    table: Any,
    bounds: Any,
    characters: Any,
    kinds: Any,
    terms: Any,
    fronts: Any,
    stop_words: Any,
    limits: Any,
) -> Any:
    codes = np.zeros(len(offsets) - 1, dtype=np.int8)
    for text in range(len(codes)):
        words = slice(bounds[text], bounds[text + 1])
        codes[text] = _judge_words(characters[words], kinds[words], limits)
        if not codes[text]:
            count = bounds[text + 1] - bounds[text]
            codes[text] = _judge_signs(data, offsets[text], offsets[text + 1], table, count, limits)
        if not codes[text]:
            codes[text] = _judge_letters(kinds[words], terms[words], fronts[words], stop_words, limits)
    return codes


@compiled
def _judge_words(characters: Any, kinds: Any, limits: Any) -> int:
    solid = length = 0
    for word in range(len(kinds)):
        if kinds[word] & SOLID:
            solid += 1
            length += characters[word]
    if solid < limits[0] or len(kinds) == 0:
        return 1
    if solid > limits[1]:
        return 2
    if solid:
        if length / solid < limits[2]:
            return 3
        if length / solid > limits[3]:
            return 4
    return 0


@compiled
def _judge_signs(data: Any, start: int, end: int, table: Any, words: int, limits: Any) -> int:
    """Rules about signs for each word, and about how lines begin and end."""
    hashes = ellipses = lines = bullets = ends = 0
    place = start
    while place < end:
        lines += 1
        begun = dotted = False
        dots = 0
        while place < end:
            point, width = decode(data, place)
            flags, _ = flags_at(data, place, table)
            place += width
            if flags & LINE_END:
                if point == 13 and place < end and data[place] == 10:
                    place += 1
                break
            dots = dots + 1 if point == _DOT else 0
            ellipses += point == _ELLIPSIS or (dots > 0 and dots % 3 == 0)
            if flags & SPACE:
                continue
            if not begun:
                begun = True
                bullets += point in (_BULLET, _HYPHEN)
            hashes += point == _HASH
            dotted = point == _ELLIPSIS or dots >= 3
        ends += dotted
    if hashes / words > limits[4]:
        return 5
    if ellipses / words > limits[5]:
        return 6
    if bullets / lines > limits[6]:
        return 7
    if ends / lines > limits[7]:
        return 8
    return 0


@compiled
def _judge_letters(kinds: Any, terms: Any, fronts: Any, stop_words: Any, limits: Any) -> int:
    alphabetic = 0
    seen = np.uint64(0)
    for word in range(len(kinds)):
        if kinds[word] & HAS_LETTER:
            alphabetic += 1
        value = terms[word] * fronts[word]
        for number in range(len(stop_words)):
            if value == stop_words[number]:
                seen |= np.uint64(1) << np.uint64(number)
    if alphabetic / len(kinds) < limits[8]:
        return 9
    different = 0
    for number in range(len(stop_words)):
        different += int((seen >> np.uint64(number)) & np.uint64(1))
    return 10 if different < limits[9] else 0
