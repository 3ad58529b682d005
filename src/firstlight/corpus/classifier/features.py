"""Which words stand in a text, as numbers: hashed n-grams of words, and of characters where no spaces part the words.

A text becomes a row of units: words (letters and digits, A–Z as a–z, every ASCII digit as 0), and single characters of
Han, kana, Thai and their like. Every run of 1 to `ngrams` neighbouring units is hashed to one of 2^bits buckets, as in
fastText (Joulin et al. 2017) and in hashing vectorizers (Weinberger et al. 2009). It runs over the UTF-8 bytes in
compiled code, so that it costs little beside reading the text. The hash is part of a saved model: it never changes
within a `FEATURES_VERSION`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.compiled import compiled

FEATURES_VERSION = 1

_OFFSET = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
"""Offset and prime of the 64-bit FNV-1a hash, which reads a word byte by byte."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0x94D049BB133111EB)
"""Golden ratio and multiplier of splitmix64, which join hashes and spread them over the buckets."""
_SEPARATOR, _LETTER, _CHARACTER = 0, 1, 2


def _ascii_units() -> NDArray[np.uint8]:
    """[128] what a byte counts as inside a word; 0: it parts words."""
    table = np.zeros(128, dtype=np.uint8)
    for byte in b"abcdefghijklmnopqrstuvwxyz":
        table[byte] = table[byte - 32] = byte
    table[ord("0") : ord("9") + 1] = ord("0")
    return table


_ASCII = _ascii_units()


@compiled
def _kind(data: Any, place: int, end: int) -> Any:
    """What the non-ASCII character at `place` is, and its length in bytes (never past `end`)."""
    lead = data[place]
    if lead < 0xE0:
        point = (np.int64(lead & 0x1F) << 6) | np.int64(data[min(place + 1, end - 1)] & 0x3F)
        width = min(2, end - place)
        if point < 0xC0:
            return (_LETTER if point in (0xAA, 0xB5, 0xBA) else _SEPARATOR), width
        return (_SEPARATOR if point in (0xD7, 0xF7) else _LETTER), width
    if lead < 0xF0:
        width = min(3, end - place)
        if width < 3:
            return _SEPARATOR, width
        point = (
            (np.int64(lead & 0x0F) << 12) | (np.int64(data[place + 1] & 0x3F) << 6) | np.int64(data[place + 2] & 0x3F)
        )
        if point >= 0x3400:
            if point <= 0x9FFF or 0xF900 <= point <= 0xFAFF:  # Han
                return _CHARACTER, width
            if 0xFE10 <= point <= 0xFE6F or point >= 0xFFE0 or 0xFF5B <= point <= 0xFF65:
                return _SEPARATOR, width
            if 0xFF00 <= point <= 0xFF0F or 0xFF1A <= point <= 0xFF20 or 0xFF3B <= point <= 0xFF40:
                return _SEPARATOR, width
            return _LETTER, width
        if 0x2000 <= point <= 0x2BFF or 0x3000 <= point <= 0x303F:  # punctuation, arrows, mathematical signs
            return _SEPARATOR, width
        if 0x0E00 <= point <= 0x0EFF or 0x1000 <= point <= 0x109F or 0x1780 <= point <= 0x17FF:  # Thai, Lao, …
            return _CHARACTER, width
        return (_CHARACTER if point >= 0x2E80 else _LETTER), width  # radicals, kana, bopomofo
    width = min(4, end - place)
    return (_CHARACTER if lead == 0xF0 and width == 4 and data[place + 1] >= 0x9F else _LETTER), width  # emoji, Han


@compiled
def _next_unit(data: Any, place: int, end: int) -> Any:
    """Hash of the first unit at or after `place`, and where to go on; the hash is 0 where none is left."""
    value = _OFFSET
    inside = False
    while place < end:
        byte = data[place]
        if byte < 0x80:
            folded = _ASCII[byte]
            place += 1
            if folded:
                value = (value ^ np.uint64(folded)) * _PRIME
                inside = True
            elif inside:
                break
            continue
        kind, width = _kind(data, place, end)
        if kind == _LETTER or (kind == _CHARACTER and not inside):
            for offset in range(width):
                value = (value ^ np.uint64(data[place + offset])) * _PRIME
            place += width
            inside = True
            if kind == _CHARACTER:
                break
        elif inside:
            break
        else:
            place += width
    return (value | np.uint64(1) if inside else np.uint64(0)), place


@compiled
def _bucket(value: Any, shift: Any) -> Any:
    value = (value ^ (value >> np.uint64(32))) * _MIXER
    return (value ^ (value >> np.uint64(29))) * _FACTOR >> shift


@compiled
def sum_weights(data: Any, offsets: Any, weights: Any, bits: int, ngrams: int) -> Any:
    """Sum of the weights of all features of every text, and how many there are: [texts] float64, [texts] int64.

    data, offsets: the texts in UTF-8 as `Block.utf8` gives them. weights: [2^bits] float32. ngrams: 1 to 3.
    """
    shift = np.uint64(64 - bits)
    sums = np.zeros(len(offsets) - 1, dtype=np.float64)
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for text in range(len(offsets) - 1):
        place, end = offsets[text], offsets[text + 1]
        total, count = 0.0, 0
        before = before_that = np.uint64(0)
        while True:
            unit, place = _next_unit(data, place, end)
            if unit == 0:
                break
            total += weights[_bucket(unit, shift)]
            count += 1
            if before and ngrams > 1:
                pair = before * _FACTOR + unit
                total += weights[_bucket(pair, shift)]
                count += 1
                if before_that and ngrams > 2:
                    total += weights[_bucket((before_that * _FACTOR + before) * _FACTOR + unit, shift)]
                    count += 1
            before_that, before = before, unit
        sums[text], counts[text] = total, count
    return sums, counts


@compiled
def count_features(data: Any, offsets: Any, ngrams: int) -> Any:
    """Features of every text, repeated ones counted: [texts] int64."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for text in range(len(offsets) - 1):
        place, end, units = offsets[text], offsets[text + 1], 0
        while True:
            unit, place = _next_unit(data, place, end)
            if unit == 0:
                break
            units += 1
            counts[text] += min(units, ngrams)
    return counts


@compiled
def fill_features(data: Any, offsets: Any, bits: int, ngrams: int, first: Any, buckets: Any) -> None:
    """Write the bucket of every feature of text i into `buckets[first[i]:first[i + 1]]` (int32)."""
    shift = np.uint64(64 - bits)
    for text in range(len(offsets) - 1):
        place, end, to = offsets[text], offsets[text + 1], first[text]
        before = before_that = np.uint64(0)
        while True:
            unit, place = _next_unit(data, place, end)
            if unit == 0:
                break
            buckets[to] = _bucket(unit, shift)
            to += 1
            if before and ngrams > 1:
                buckets[to] = _bucket(before * _FACTOR + unit, shift)
                to += 1
                if before_that and ngrams > 2:
                    buckets[to] = _bucket((before_that * _FACTOR + before) * _FACTOR + unit, shift)
                    to += 1
            before_that, before = before, unit
