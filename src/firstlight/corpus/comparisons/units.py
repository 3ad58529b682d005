"""What texts are compared by: words in lower case without accents, and every Han or kana character by itself.

One pass over the UTF-8 bytes in compiled code turns a text into 64-bit hashes of its units. What a character counts
as comes from a table made of Unicode 3.2, which every Python carries and none changes, so that hashes never depend on
the Python that made them. Punctuation and symbols part words and are no units, as in datatrove's `simplify_text`.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.compiled import compiled

ALONE = np.uint32(1 << 31)
"""A character that is a unit by itself."""
IGNORED = np.uint32(1 << 30)
"""A combining mark: neither part of a word nor an end of it."""
DIGIT = np.uint32(1 << 29)
"""A digit where numbers are folded: any number of them counts as one."""
_PRIME = np.uint64(0x9FB21C651E98DF25)
_OFFSET = np.uint64(0xCBF29CE484222325)
_MIXER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIXER_2 = np.uint64(0x94D049BB133111EB)
"""Multipliers of splitmix64 (Steele et al. 2014)."""
_SOFT_HYPHEN = 0xAD
WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x30FF),  # radicals, kana
    (0x3100, 0x312F),  # bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
)


@cache
def character_table(fold_numbers: bool) -> NDArray[np.uint32]:
    """[65536] what each character of the basic plane counts as: 0 parts words; else its folded form, with flags.

    fold_numbers: numbers count as equal, whatever their digits.
    """
    table = np.zeros(0x10000, dtype=np.uint32)
    for point in range(0x10000):
        table[point] = _folded(point, fold_numbers)
    for first, last in WITHOUT_SPACES:
        part = table[first : last + 1]
        part[(part != 0) & (part & IGNORED == 0) & (part & DIGIT == 0)] |= ALONE
    return table


def _folded(point: int, fold_numbers: bool) -> int:
    old = unicodedata.ucd_3_2_0
    character = chr(point)
    category = old.category(character)
    if category in ("Mn", "Me", "Cf") or point == _SOFT_HYPHEN:
        return int(IGNORED)
    if category[0] in "PSZ" or category in ("Cc", "Cs", "Co"):
        return 0
    if category == "Nd":
        digit = ord("0") + old.digit(character)
        return int(DIGIT) | ord("0") if fold_numbers else digit
    parts = old.normalize("NFKD", character)
    if all(old.category(mark) == "Mn" for mark in parts[1:]):
        character = parts[0]
    lower = character.lower() if old.category(character) in ("Lu", "Lt") else character
    return ord(lower) if len(lower) == 1 and ord(lower) < 0x10000 else point


@compiled
def mix(value: Any) -> Any:
    """Spread the bits of a 64-bit number: the last steps of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * _MIXER_1
    value = (value ^ (value >> np.uint64(27))) * _MIXER_2
    return value ^ (value >> np.uint64(31))


@compiled
def hash_units(data: Any, start: int, end: int, table: Any, units: Any) -> int:
    """Write the hashes of the units of data[start:end] (valid UTF-8) into `units`; returns how many there are.

    data: uint8. table: of `character_table`. units: uint64, with room for end - start hashes.
    """
    count = 0
    value = _OFFSET
    inside = False
    in_number = False
    place = start
    while place < end:
        lead = data[place]
        if lead < 0x80:
            point = np.uint32(lead)
            place += 1
        elif lead < 0xE0:
            point = (np.uint32(lead & 0x1F) << np.uint32(6)) | np.uint32(data[place + 1] & 0x3F)
            place += 2
        elif lead < 0xF0:
            point = (
                (np.uint32(lead & 0x0F) << np.uint32(12))
                | (np.uint32(data[place + 1] & 0x3F) << np.uint32(6))
                | np.uint32(data[place + 2] & 0x3F)
            )
            place += 3
        else:
            point = (
                (np.uint32(lead & 0x07) << np.uint32(18))
                | (np.uint32(data[place + 1] & 0x3F) << np.uint32(12))
                | (np.uint32(data[place + 2] & 0x3F) << np.uint32(6))
                | np.uint32(data[place + 3] & 0x3F)
            )
            place += 4
        folded = table[point] if point < np.uint32(0x10000) else point | ALONE
        if np.uint32(0) < folded < DIGIT:
            value = (value ^ np.uint64(folded)) * _PRIME
            inside = True
            in_number = False
            continue
        if folded == IGNORED:
            continue
        if folded == np.uint32(0) or folded & ALONE:
            if inside:
                units[count] = mix(value)
                count += 1
                value = _OFFSET
                inside = in_number = False
            if folded:
                units[count] = mix((_OFFSET ^ np.uint64(folded)) * _PRIME)
                count += 1
            continue
        if not in_number:
            value = (value ^ np.uint64(folded)) * _PRIME
            inside = in_number = True
    if inside:
        units[count] = mix(value)
        count += 1
    return count


@compiled
def power(base: Any, exponent: int) -> Any:
    """base^exponent mod 2^64."""
    result = np.uint64(1)
    for _ in range(exponent):
        result = result * base
    return result
