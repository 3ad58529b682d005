"""Texts in words, and what the quality rules need to know of each word, as arrays made once for a block.

Three ways to part words (`WordSplit`): at white space; signs apart, near to what spaCy and NLTK do; and by jieba's
dictionary (the package `rjieba`, a port in Rust). Each word is reduced to numbers: its characters, what kinds it has,
and a hash that the hashes of its neighbours can be added to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.comparisons.units import mix
from firstlight.corpus.compiled import compiled, inlined
from firstlight.corpus.rules.characters import (
    ALONE,
    DECIMAL,
    IN_WORD,
    LETTER,
    MARK,
    SIGN,
    SPACE,
    TABLE_SIZE,
    character_flags,
    decode,
    flags_at,
)
from firstlight.corpus.step import Block
from firstlight.support.errors import FirstlightError

HAS_LETTER = np.uint8(1)
SOLID = np.uint8(2)
"""Not only signs."""

BASE = np.uint64(0xD6E8FEB86659FD93)
INVERSE = np.uint64(pow(0xD6E8FEB86659FD93, -1, 1 << 64))
"""Bytes of words are digits in this base (mod 2^64, odd); its inverse moves a word to the front."""

_APOSTROPHE, _QUOTE, _DOT, _COMMA, _COLON, _SLASH = map(ord, "'’.,:/")


@dataclass(frozen=True)
class Words:
    """The words of several texts, one after another; all arrays but `offsets` are [words]."""

    offsets: NDArray[np.int64]
    """[texts + 1]: text i has the words offsets[i] to offsets[i + 1]."""
    characters: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    """HAS_LETTER and SOLID."""
    terms: NDArray[np.uint64]
    """What a word adds to the number that the bytes of all words up to it make."""
    fronts: NDArray[np.uint64]
    """INVERSE^(bytes before the word): the sum of the terms of neighbours times this is the hash of their bytes
    joined, wherever they stand."""

    def select(self, places: NDArray[np.int64]) -> Words:
        """Those of the texts at `places`."""
        starts, ends = self.offsets[places], self.offsets[places + 1]
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return Words(offsets, self.characters[rows], self.kinds[rows], self.terms[rows], self.fronts[rows])


def words_of(block: Block, split: str) -> Words:
    """The words of a block, made once for each `split`."""
    return block.once(f"words {split}", lambda of: _measured(of, split))


def split_words(text: str, split: str) -> list[str]:
    """The words of a text, to look at."""
    block = Block([text], [{}])
    data = block.utf8().data.tobytes()
    starts, ends, _ = _places(block, split)
    return [data[start:end].decode("utf-8") for start, end in zip(starts, ends, strict=True)]


def _measured(block: Block, split: str) -> Words:
    starts, ends, bounds = _places(block, split)
    return Words(bounds, *_measure(block.utf8().data, starts, ends, character_flags(), _byte_values()))


def _places(block: Block, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Bytes where the words of a block start and end: [words] each; and [texts + 1] which of them a text has."""
    data, offsets = block.utf8()
    table = character_flags()
    if split == "jieba":
        lengths, counts = _jieba(block.texts)
        starts, ends, bounds = _spans_of_lengths(data, offsets, lengths, counts, table)
    else:
        starts, ends, bounds = _spans(data, offsets, table, split == "whitespace")
    return starts, ends, bounds


def _jieba(texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters of each word, white space between them included, and words of each text."""
    try:
        from rjieba import cut
    except ImportError:
        raise FirstlightError("`words: jieba` needs the `rjieba` package; pip install 'firstlight[corpus]'.") from None
    lengths: list[int] = []
    counts = np.empty(len(texts), dtype=np.int64)
    for number, text in enumerate(texts):
        words = cut(text)
        counts[number] = len(words)
        lengths += map(len, words)
    return np.array(lengths, dtype=np.int64), counts


@cache
def _byte_values() -> NDArray[np.uint64]:
    """[256] a number for each byte, so that words of few different bytes do not meet."""
    return np.array([mix(np.uint64(byte + 1)) for byte in range(256)], dtype=np.uint64)


@compiled
def _spans(data: Any, offsets: Any, table: Any, whitespace: bool) -> Any:
    """As `_places`, of words that white space parts, or of those with signs apart."""
    starts, ends = np.empty(len(data), dtype=np.int64), np.empty(len(data), dtype=np.int64)
    bounds = np.zeros(len(offsets), dtype=np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        place, end = offsets[text], offsets[text + 1]
        while place < end:
            flags, width = flags_at(data, place, table)
            if flags & SPACE:
                place += width
                continue
            starts[count] = place
            place = _end_of_solid(data, place, end, table) if whitespace else _end_of_word(data, place, end, table)
            ends[count] = place
            count += 1
        bounds[text + 1] = count
    return starts[:count], ends[:count], bounds


@compiled
def count_words(data: Any, place: int, end: int, table: Any, whitespace: bool, enough: float) -> int:
    """Words of data[place:end], as `_spans` has them; counting stops at `enough`."""
    count = 0
    while place < end and count < enough:
        flags, width = flags_at(data, place, table)
        if flags & SPACE:
            place += width
            continue
        place = _end_of_solid(data, place, end, table) if whitespace else _end_of_word(data, place, end, table)
        count += 1
    return count


@inlined
def _end_of_solid(data: Any, place: int, end: int, table: Any) -> int:
    while place < end:
        flags, width = flags_at(data, place, table)
        if flags & SPACE:
            break
        place += width
    return place


@inlined
def _end_of_word(data: Any, place: int, end: int, table: Any) -> int:
    """Where the word that begins at `place` ends, signs apart.

    Letters and digits are joined, also by one sign between them as in don't, U.S, 3.14, 12:30; a sign is joined with
    equal ones, so that "..." is one word; combining marks stay with what they follow.
    """
    first, width = decode(data, place)
    flags = table[first] if first < TABLE_SIZE else np.uint16(0)
    place += width
    joins = flags & IN_WORD and not flags & ALONE
    is_sign = not flags & (IN_WORD | MARK)
    while place < end:
        point, width = decode(data, place)
        follows = table[point] if point < TABLE_SIZE else np.uint16(0)
        if joins and follows & (IN_WORD | ALONE) == IN_WORD:
            place += width
            flags = follows
            continue
        if follows & MARK:
            place += width
            continue
        if joins and place + width < end and _joins(point, flags, flags_at(data, place + width, table)[0]):
            place += width
            continue
        if is_sign and point == first:
            place += width
            continue
        break
    return place


@inlined
def _joins(point: int, before: Any, after: Any) -> bool:
    """Whether a sign between two characters with these flags is inside a word."""
    if not after & IN_WORD or after & ALONE:
        return False
    if point == _DOT:
        return True
    if point in (_APOSTROPHE, _QUOTE):
        return bool(before & LETTER) and bool(after & LETTER)
    return point in (_COMMA, _COLON, _SLASH) and bool(before & DECIMAL) and bool(after & DECIMAL)


@compiled
def _spans_of_lengths(data: Any, offsets: Any, lengths: Any, counts: Any, table: Any) -> Any:
    """As `_places`, of words given by their characters; those of white space alone are left out."""
    starts, ends = np.empty(len(lengths), dtype=np.int64), np.empty(len(lengths), dtype=np.int64)
    bounds = np.zeros(len(offsets), dtype=np.int64)
    count = word = 0
    for text in range(len(offsets) - 1):
        place = offsets[text]
        for _ in range(counts[text]):
            start = place
            solid = False
            for _ in range(lengths[word]):
                flags, width = flags_at(data, place, table)
                solid |= not flags & SPACE
                place += width
            word += 1
            if solid:
                starts[count], ends[count] = start, place
                count += 1
        bounds[text + 1] = count
    return starts[:count].copy(), ends[:count].copy(), bounds


@compiled
def _measure(data: Any, starts: Any, ends: Any, table: Any, values: Any) -> Any:
    """Characters, kinds, terms and fronts of words that stand at data[starts:ends]."""
    count = len(starts)
    characters, kinds = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.uint8)
    terms, fronts = np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.uint64)
    power, front = np.uint64(1), np.uint64(1)
    for word in range(count):
        place, end = starts[word], ends[word]
        fronts[word] = front
        term = np.uint64(0)
        length = 0
        kind = np.uint8(0)
        while place < end:
            flags, width = flags_at(data, place, table)
            if flags & LETTER:
                kind |= HAS_LETTER
            if not flags & SIGN:
                kind |= SOLID
            length += 1
            for _ in range(width):
                term += values[data[place]] * power
                power *= BASE
                front *= INVERSE
                place += 1
        characters[word], kinds[word], terms[word] = length, kind, term
    return characters, kinds, terms, fronts


def word_hash(word: str) -> np.uint64:
    """The hash that a word has in `Words`: its term times its front."""
    data = np.frombuffer(word.encode("utf-8"), dtype=np.uint8)
    bounds = np.array([0]), np.array([len(data)])
    _, _, terms, fronts = _measure(data, *bounds, character_flags(), _byte_values())
    return terms[0] * fronts[0]
