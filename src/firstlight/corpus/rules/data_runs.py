r"""Runs of data in source code: base64, hexadecimal bytes, `\u` escapes. All is ASCII, so that bytes are characters."""

from __future__ import annotations

from typing import Any

from firstlight.corpus.compiled import compiled, inlined

_BASE64_CHARACTERS = 64
_BASE64_LINE = 32
"""A line end is inside base64 only after so many characters of it: lists of words are no data."""
_HEX_BYTES = 8
_ESCAPES = 8
"""Shorter runs are no data."""


@compiled
def data_runs(data: Any, start: int, end: int) -> Any:
    """(characters in runs of data, characters of the longest run) of data[start:end]."""
    total = longest = 0
    place = start
    while place < end:
        byte = data[place]
        if _is_base64(byte):
            # Both begin with such a character, and only one of them can be long: bytes have signs between them.
            after = max(_after_base64(data, place, end), _after_hex(data, place, end))
        elif byte == 92:
            after = max(_after_escapes(data, place, end), _after_hex(data, place, end))
        else:
            after = place
        if after > place:
            total += after - place
            longest = max(longest, after - place)
            place = after
            continue
        place += 1
        while _is_base64(byte) and place < end and _is_base64(data[place]):
            place += 1
    return total, longest


@inlined
def _is_base64(byte: int) -> bool:
    return 97 <= byte <= 122 or 65 <= byte <= 90 or 48 <= byte <= 57 or byte == 43 or byte == 47 or byte == 61


@inlined
def _is_hex(byte: int) -> bool:
    return 48 <= byte <= 57 or 97 <= byte <= 102 or 65 <= byte <= 70


@compiled
def _after_base64(data: Any, start: int, end: int) -> int:
    """Where the base64 that begins at `start` ends; `start` where it is too short."""
    line = place = last = start
    while place < end:
        if _is_base64(data[place]):
            place += 1
            last = place
        elif data[place] == 10 and place - line >= _BASE64_LINE:
            place += 1
            line = place
        else:
            break
    return last if last - start >= _BASE64_CHARACTERS else start


@compiled
def _after_hex(data: Any, start: int, end: int) -> int:
    r"""Where the bytes (`0x1f, 0xa0`, `\x1f\xa0`, `1f a0`) that begin at `start` end; `start` where they are few."""
    place = last = start
    count = 0
    while True:
        prefixed = place + 1 < end and (data[place] == 48 or data[place] == 92) and data[place + 1] | 32 == 120
        place += 2 if prefixed else 0
        if place + 1 >= end or not (_is_hex(data[place]) and _is_hex(data[place + 1])):
            break
        place += 2
        if place < end and data[place] != 92 and (_is_base64(data[place]) or data[place] == 95):
            break
        count += 1
        last = place
        while place < end and (data[place] == 44 or data[place] == 32 or 9 <= data[place] <= 13):
            place += 1
    return last if count >= _HEX_BYTES else start


@compiled
def _after_escapes(data: Any, start: int, end: int) -> int:
    r"""Where the escapes (`\u00e9\u0301`) that begin at `start` end; `start` where they are few."""
    place = start
    count = 0
    while place + 6 <= end and data[place] == 92 and data[place + 1] == 117:
        for digit in range(place + 2, place + 6):
            if not _is_hex(data[digit]):
                return place if count >= _ESCAPES else start
        place += 6
        count += 1
    return place if count >= _ESCAPES else start
