"""Lines that are no sentences go, and documents with too few of them: C4 (Raffel et al. 2020, section 2.2).

With the details of its program and of datatrove: words of over 1,000 characters, citation marks, cookie and policy
notices. Sentences are told by marks, not by a model: one ends with `.`, `!` or `?` before white space or the end of
the line, and with `。` and other wide marks anywhere, closing quotes and brackets after them included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config.rules import C4
from firstlight.corpus.compiled import compiled
from firstlight.corpus.rules.characters import (
    DECIMAL,
    LINE_END,
    SPACE,
    TERMINAL,
    after_last_solid,
    character_flags,
    decode,
    first_solid,
    flags_at,
    starts_with,
)
from firstlight.corpus.rules.judge import limits
from firstlight.corpus.step import Block, Result

_DROPPED = ("lorem ipsum", "curly bracket", "few sentences", "no line left")
_REMOVED = ("with a long word", "without a mark at the end", "with few words", "about javascript", "about policies")
_LOREM, _SCRIPT = "lorem ipsum", "javascript"
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CLOSING = np.array(sorted(map(ord, "\"'”’)]}»」』】）》〉")), dtype=np.int64)
_KELVIN = 0x212A
"""The one character beyond ASCII whose small form, k, is in these phrases."""


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


_DOTS, _EDIT, _NEEDED = map(_bytes, ("...", "edit]", "citation needed]"))


class C4Step:
    """Removes lines, and drops documents for a line that stays or for too few sentences in those that do."""

    def __init__(self, config: C4) -> None:
        self.config = config
        self._limits = limits(config.max_word_length, config.min_line_words, config.min_sentences)
        self._phrases = (
            [_LOREM] if config.drop_lorem_ipsum else [],
            [_SCRIPT] if config.remove_javascript_lines else [],
            list(_POLICY) if config.remove_policy_lines else [],
        )
        self._patterns = tuple(map(_bytes, (_LOREM, _SCRIPT, *_POLICY)))

    def apply(self, block: Block) -> Result:
        """Reasons "lorem ipsum", "curly bracket", "few sentences", "no line left"; counts lines removed by why."""
        data, offsets = block.utf8()
        codes, ends, out, removed = _clean(
            data,
            offsets,
            character_flags(),
            self._mentions(block.texts),
            self._patterns,
            self._limits,
            self.config.remove_citations,
            self.config.terminal_punctuation,
            self.config.drop_curly_brackets,
            _CLOSING,
        )
        texts = list(block.texts)
        for place in np.flatnonzero((codes == 0) & (ends[:, 1] - ends[:, 0] != np.diff(offsets))):
            texts[place] = out[ends[place, 0] : ends[place, 1]].tobytes().decode("utf-8")
        named = [None, *_DROPPED]
        counts = {f"lines {why}": int(count) for why, count in zip(_REMOVED, removed, strict=True) if count}
        return Result([named[code] for code in codes.tolist()], texts=texts, counts=counts)

    def _mentions(self, texts: list[str]) -> NDArray[np.bool_]:
        """[texts, 3] whether a text has a phrase of each kind anywhere; only then are its lines searched."""
        found = np.zeros((len(texts), len(self._phrases)), dtype=np.bool_)
        for place, text in enumerate(texts):
            small = text.lower()
            found[place] = [any(phrase in small for phrase in phrases) for phrases in self._phrases]
        return found


@compiled
def _clean(
    data: Any,
    offsets: Any,
    table: Any,
    mentions: Any,
    patterns: Any,
    limits: Any,
    citations: bool,
    marks: bool,
    brackets: bool,
    closing: Any,
) -> Any:
    """(codes [texts], where each cleaned text stands in `out` [texts, 2], out, lines removed by reason [5])."""
    texts = len(offsets) - 1
    codes, ends = np.zeros(texts, dtype=np.int8), np.zeros((texts, 2), dtype=np.int64)
    out, removed = np.empty(len(data) + 1, dtype=np.uint8), np.zeros(5, dtype=np.int64)
    to = 0
    for text in range(texts):
        begin, sentences, code = to, 0, 0
        place, end = offsets[text], offsets[text + 1]
        while place < end and code == 0:
            line = place
            while place < end:
                flags, width = flags_at(data, place, table)
                if flags & LINE_END:
                    break
                place += width
            solid = first_solid(data, line, place, table)
            last = max(solid, after_last_solid(data, line, place, table))
            if place < end:
                place += 2 if data[place] == 13 and place + 1 < end and data[place + 1] == 10 else width
            words, longest = _words(data, solid, last, table)
            if longest > limits[0]:
                removed[0] += 1
                continue
            first = to
            if to > begin:
                out[to] = 10
                first += 1
            after = _copy(data, solid, last, out, first, table, citations)
            if marks and not _ends_well(out, first, after):
                removed[1] += 1
            elif words < limits[1]:
                removed[2] += 1
            elif mentions[text, 0] and _contains(out, first, after, patterns[0]):
                code = 1
            elif mentions[text, 1] and _contains(out, first, after, patterns[1]):
                removed[3] += 1
            elif brackets and _has_byte(out, first, after, 123):
                code = 2
            elif mentions[text, 2] and _any_of(out, first, after, patterns):
                removed[4] += 1
            else:
                sentences += count_sentences(out, first, after, table, closing)
                to = after
        if code == 0 and sentences < limits[2]:
            code = 3
        ends[text, 0] = first_solid(out, begin, to, table)
        ends[text, 1] = max(ends[text, 0], after_last_solid(out, begin, to, table))
        if code == 0 and ends[text, 0] == ends[text, 1]:
            code = 4
        codes[text] = code
    return codes, ends, out, removed


@compiled
def _words(data: Any, place: int, end: int, table: Any) -> Any:
    """Words of a line, parted by white space, and characters of the longest."""
    words = longest = length = 0
    while place < end:
        flags, width = flags_at(data, place, table)
        place += width
        if flags & SPACE:
            length = 0
        else:
            words += length == 0
            length += 1
            longest = max(longest, length)
    return words, longest


@compiled
def _copy(data: Any, place: int, end: int, out: Any, to: int, table: Any, citations: bool) -> int:
    """Copy a line to out[to:], without citations; returns where it ends there."""
    while place < end:
        if citations and data[place] == 91:
            after = _after_citation(data, place + 1, end, table)
            if after:
                place = after
                continue
        out[to] = data[place]
        to += 1
        place += 1
    return to


@compiled
def _after_citation(data: Any, place: int, end: int, table: Any) -> int:
    """Where `[12]`, `[]`, `[edit]` or `[citation needed]` ends, `place` being after its bracket; 0 if it is none."""
    if starts_with(data, place, end, _EDIT):
        return place + len(_EDIT)
    if starts_with(data, place, end, _NEEDED):
        return place + len(_NEEDED)
    while place < end:
        if data[place] == 93:
            return place + 1
        flags, width = flags_at(data, place, table)
        if not flags & DECIMAL:
            return 0
        place += width
    return 0


@compiled
def _ends_well(out: Any, start: int, end: int) -> bool:
    if end == start:
        return False
    last = out[end - 1]
    if last != 46 and last != 63 and last != 33 and last != 34 and last != 39:
        return False
    return not (end - start >= 3 and starts_with(out, end - 3, end, _DOTS))


@compiled
def _has_byte(data: Any, start: int, end: int, byte: int) -> bool:
    for place in range(start, end):
        if data[place] == byte:
            return True
    return False


@compiled
def _any_of(data: Any, start: int, end: int, patterns: Any) -> bool:
    """Whether data[start:end] has one of the phrases about policies."""
    for number in range(2, len(patterns)):
        if _contains(data, start, end, patterns[number]):
            return True
    return False


@compiled
def _contains(data: Any, start: int, end: int, phrase: Any) -> bool:
    """Whether a phrase of small ASCII letters and spaces stands in data[start:end], whatever the case."""
    for first in range(start, end):
        place = first
        number = 0
        while number < len(phrase) and place < end:
            point, width = decode(data, place)
            if 65 <= point <= 90:
                point += 32
            elif point == _KELVIN:
                point = 107
            if point != phrase[number]:
                break
            number += 1
            place += width
        if number == len(phrase):
            return True
    return False


@compiled
def count_sentences(data: Any, place: int, end: int, table: Any, closing: Any) -> int:
    """Sentences of a line of valid UTF-8; what follows the last mark is one more."""
    count = 0
    inside = False
    while place < end:
        point, width = decode(data, place)
        flags, _ = flags_at(data, place, table)
        place += width
        inside |= not flags & SPACE
        if not flags & TERMINAL:
            continue
        wide = point >= 128
        while place < end:
            point, width = decode(data, place)
            flags, _ = flags_at(data, place, table)
            if flags & TERMINAL:
                wide |= point >= 128
            elif not _is_closing(point, closing):
                break
            place += width
        if wide or place == end or flags & SPACE:
            count += 1
            inside = False
    return count + inside


@compiled
def _is_closing(point: int, closing: Any) -> bool:
    for mark in closing:
        if mark == point:
            return True
    return False
