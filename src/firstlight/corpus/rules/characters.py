"""What the quality rules call a letter, a sign, white space, a line end: a table of flags for every character.

Letters, white space and line ends are Python's (`str.isalpha`, `str.isspace`, `str.splitlines`), as in the programs
that the published thresholds were chosen with. Signs and marks that end sentences are datatrove's lists; the second
is Unicode's property Sentence_Terminal without some rare marks.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.comparisons.units import WITHOUT_SPACES
from firstlight.corpus.compiled import compiled, inlined

SPACE = np.uint16(1)
LINE_END = np.uint16(2)
LETTER = np.uint16(4)
SIGN = np.uint16(8)
"""A word of nothing but these is no word to the rules that count words."""
TERMINAL = np.uint16(16)
"""Ends sentences."""
DECIMAL = np.uint16(32)
IN_WORD = np.uint16(64)
"""Letters, digits and `_`: neighbours make one word where signs are apart."""
MARK = np.uint16(128)
"""Combining: belongs to the character before it."""
ALONE = np.uint16(256)
"""A letter of a script without spaces: a word by itself where signs are apart."""

TABLE_SIZE = 0x32400
"""No character from here on is a letter, white space or a sign."""

_SIGNS = "«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
_CONTROL_SIGNS = (*range(9), *range(11, 32), *range(127, 160))
_TERMINAL = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88"
)


def terminal_marks() -> list[int]:
    """Code points of the marks that end sentences."""
    marks: list[int] = []
    for part in _TERMINAL.split():
        first, _, last = part.partition("-")
        marks += range(int(first, 16), int(last or first, 16) + 1)
    return marks


@cache
def character_flags() -> NDArray[np.uint16]:
    """[TABLE_SIZE] the flags of every character."""
    table = np.zeros(TABLE_SIZE, dtype=np.uint16)
    for point in range(TABLE_SIZE):
        character = chr(point)
        flags = np.uint16(0)
        if character.isspace():
            flags |= SPACE
        if len(f"a{character}a".splitlines()) > 1:
            flags |= LINE_END
        if character.isalpha():
            flags |= LETTER
        if character.isdecimal():
            flags |= DECIMAL
        if character.isalnum() or character == "_":
            flags |= IN_WORD
        elif point > 0x2FF and unicodedata.category(character)[0] == "M":
            flags |= MARK
        table[point] = flags
    terminal = terminal_marks()
    table[terminal] |= TERMINAL
    signs = [*range(0x21, 0x30), *range(0x3A, 0x41), *range(0x5B, 0x61), *range(0x7B, 0x7F), *map(ord, _SIGNS)]
    table[[*signs, *_CONTROL_SIGNS, *terminal]] |= SIGN
    for first, last in (*WITHOUT_SPACES, (0x20000, TABLE_SIZE - 1)):
        part = table[first : last + 1]
        part[part & IN_WORD != 0] |= ALONE
    return table


@inlined
def decode(data: Any, place: int) -> Any:
    """Code point and bytes of the character at `place` of valid UTF-8."""
    lead = np.int64(data[place])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return ((lead & 0x1F) << 6) | (np.int64(data[place + 1]) & 0x3F), 2
    if lead < 0xF0:
        return (
            ((lead & 0x0F) << 12) | ((np.int64(data[place + 1]) & 0x3F) << 6) | (np.int64(data[place + 2]) & 0x3F)
        ), 3
    return (
        ((lead & 0x07) << 18)
        | ((np.int64(data[place + 1]) & 0x3F) << 12)
        | ((np.int64(data[place + 2]) & 0x3F) << 6)
        | (np.int64(data[place + 3]) & 0x3F)
    ), 4


@inlined
def flags_at(data: Any, place: int, table: Any) -> Any:
    """Flags and bytes of the character at `place` of valid UTF-8."""
    point, width = decode(data, place)
    return (table[point] if point < TABLE_SIZE else np.uint16(0)), width


@compiled
def first_solid(data: Any, start: int, end: int, table: Any) -> int:
    """Where the first character of data[start:end] stands that is no white space; `end` where there is none."""
    while start < end:
        flags, width = flags_at(data, start, table)
        if not flags & SPACE:
            break
        start += width
    return start


@inlined
def last_character(data: Any, end: int) -> int:
    """Where the character begins that ends at `end`."""
    place = end - 1
    while data[place] & 0xC0 == 0x80:
        place -= 1
    return place


@compiled
def after_last_solid(data: Any, start: int, end: int, table: Any) -> int:
    """Where the last character of data[start:end] ends that is no white space; `start` where there is none."""
    while end > start:
        place = last_character(data, end)
        if not flags_at(data, place, table)[0] & SPACE:
            break
        end = place
    return end


@compiled
def count_characters(data: Any, start: int, end: int) -> int:
    """Characters of data[start:end]."""
    count = 0
    for place in range(start, end):
        count += data[place] & 0xC0 != 0x80
    return count


@compiled
def starts_with(data: Any, start: int, end: int, prefix: Any) -> bool:
    """Whether data[start:end] begins with the bytes of `prefix`."""
    if end - start < len(prefix):
        return False
    for place in range(len(prefix)):
        if data[start + place] != prefix[place]:
            return False
    return True
