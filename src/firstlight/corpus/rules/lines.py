"""Documents whose lines are not those of prose: the rules that FineWeb added (Penedo et al. 2024, section 3.6)."""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.config.rules import LineRules
from firstlight.corpus.compiled import compiled
from firstlight.corpus.rules.characters import (
    TERMINAL,
    after_last_solid,
    character_flags,
    count_characters,
    flags_at,
    last_character,
)
from firstlight.corpus.rules.judge import limits, verdict
from firstlight.corpus.rules.repeats import count_byte, hash_bytes, stood_before, table_for
from firstlight.corpus.rules.words import count_words, words_of
from firstlight.corpus.step import Block, Result

_REASONS = ("no lines", "few lines end sentences", "short lines", "repeated lines", "many line ends")
_LINE_FEED = 10
_TO_BE_COUNTED = -1
"""Words of a text, where they are counted only as far as the rule needs."""


class LinesStep:
    """Drops documents by the ends, lengths and repeats of their lines; blank ones do not count."""

    def __init__(self, config: LineRules) -> None:
        self.config = config
        self._limits = limits(
            config.min_terminal_lines,
            config.max_short_lines,
            config.max_repeated_line_characters,
            config.max_newlines_per_word,
        )

    def apply(self, block: Block) -> Result:
        """Reasons "no lines", "few lines end sentences", "short lines", "repeated lines", "many line ends"."""
        by_dictionary = self.config.words == "jieba"
        counts = np.diff(words_of(block, "jieba").offsets) if by_dictionary else np.full(len(block), _TO_BE_COUNTED)
        codes = _judge(
            *block.utf8(),
            character_flags(),
            counts,
            self.config.words == "whitespace",
            self._limits,
            self.config.short_line_characters,
            self.config.allow_no_terminal_line,
        )
        return verdict(codes, _REASONS)


@compiled
def _judge(
    data: Any, offsets: Any, table: Any, words: Any, whitespace: bool, limits: Any, short: int, none_passes: bool
) -> Any:
    codes = np.zeros(len(offsets) - 1, dtype=np.int8)
    for text in range(len(codes)):
        start, end = offsets[text], offsets[text + 1]
        codes[text] = _judge_lines(data, start, end, table, limits, short, none_passes)
        if codes[text] or np.isnan(limits[3]):
            continue
        newlines = count_byte(data, start, end, _LINE_FEED)
        count = words[text]
        if count == _TO_BE_COUNTED:
            enough = newlines / limits[3] + 1 if limits[3] else np.inf
            count = count_words(data, start, end, table, whitespace, enough)
        if newlines / count > limits[3]:
            codes[text] = 5
    return codes


@compiled
def _judge_lines(data: Any, start: int, end: int, table: Any, limits: Any, short: int, none_passes: bool) -> int:
    newlines = count_byte(data, start, end, _LINE_FEED)
    seen, hashes = table_for(newlines + 1), np.empty(newlines + 1, dtype=np.uint64)
    lines = terminal = shorter = repeated = different = characters = 0
    place = start
    while place < end:
        line = place
        while place < end and data[place] != _LINE_FEED:
            place += 1
        length = count_characters(data, line, place)
        characters += length
        if after_last_solid(data, line, place, table) > line:
            lines += 1
            terminal += (flags_at(data, last_character(data, place), table)[0] & TERMINAL) != 0
            shorter += length <= short
            if stood_before(seen, hashes, different, hash_bytes(data, line, place)):
                repeated += length
            else:
                different += 1
        place += 1
    if lines == 0:
        return 1
    if terminal / lines < limits[0] and not (terminal == 0 and none_passes):
        return 2
    if shorter / lines > limits[1]:
        return 3
    return 4 if repeated / characters > limits[2] else 0
