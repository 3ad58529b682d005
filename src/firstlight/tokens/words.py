"""Where words begin in a row of tokens, by two facts about each token: how it begins and how it ends.

A word is a run of letters, digits and marks with the space before it. Every other sign is a word of its own, and so is
every token of a script that is written without spaces (Chinese, Japanese, Thai, …), where a run would be a paragraph.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # hangul jamo
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0xA4CF),  # CJK radicals to Yi: kana, bopomofo, compatibility jamo, ideographs
    (0xA960, 0xA97F),  # hangul jamo
    (0xAC00, 0xD7FF),  # hangul syllables
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFFDC),  # halfwidth kana and hangul
    (0x1AFF0, 0x1B2FF),  # kana, Nüshu
    (0x20000, 0x3FFFF),  # ideographs
)
"""Ranges of code points, each with its last, whose letters begin a word wherever they stand. Korean has spaces, but
what they divide are whole phrases."""


def word_edges(spellings: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(begins, ends), both [vocabulary]: tokens that begin a word, and tokens after which one begins.

    spellings: the bytes of each token, none for those that stand for no text, which are words of their own. A token
    that begins or ends within a character does not cut a word there; one that begins with the first byte of a
    character that it does not hold whole begins a word when that character has 3 or 4 bytes.
    """
    begins = np.fromiter((_begins(data) for data in spellings), dtype=bool, count=len(spellings))
    ends = np.fromiter((_ends(data) for data in spellings), dtype=bool, count=len(spellings))
    return begins, ends


def word_numbers(begins: NDArray[np.bool_], ends: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number of the word, within its row from 0, of every token: [rows, length], from the two facts about each token.

    A row begins with a word, whatever was before it.
    """
    starts = begins.copy()
    starts[:, 1:] |= ends[:, :-1]
    starts[:, 0] = False
    return np.cumsum(starts, axis=1, dtype=np.int32)


def _begins(data: bytes) -> bool:
    if not data:
        return True
    size = _character_size(data[0])
    if len(data) < size:
        return size > 2
    return size > 0 and not _within_word(data[:size])


def _ends(data: bytes) -> bool:
    if not data:
        return True
    start = len(data) - 1
    while start and not _character_size(data[start]):
        start -= 1
    last = data[start:]
    if len(last) != _character_size(last[0]):
        return False
    return not _within_word(last) and last not in (b" ", b"\t")


def _character_size(lead: int) -> int:
    """Bytes of the UTF-8 character that begins with this byte; 0 when none does."""
    if lead < 0x80:
        return 1
    return 0 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _within_word(data: bytes) -> bool:
    """Whether a word goes on with (or after) this character: letters, digits, marks and joiners."""
    character = data.decode("utf-8", "replace")[0]
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf":
        return True
    return category[0] in "LN" and not any(first <= ord(character) <= last for first, last in WITHOUT_SPACES)
