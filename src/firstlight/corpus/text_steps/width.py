"""Full-width letters and digits become ordinary ones, half-width katakana full-width ones.

Both are leftovers of fonts with fixed cells: the same word in two widths would be two words to a tokenizer. Signs such
as ，and ？ are Chinese punctuation and stay unless asked for.
"""

from __future__ import annotations

import re
import unicodedata

from firstlight.config.text_steps import NormalizeWidth
from firstlight.corpus.step import Block, Result

_ALPHANUMERIC = "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"
_ASCII_AND_SIGNS = "\uff01-\uff5e\uffe0-\uffe6"
_KATAKANA = re.compile("[\uff61-\uff9f]+")
_TO_ASCII = {point: chr(point - 0xFEE0) for point in range(0xFF01, 0xFF5F)}
_SIGNS = {point: unicodedata.normalize("NFKC", chr(point)) for point in range(0xFFE0, 0xFFE7)} | {0xFFE3: "¯"}
_TABLE = {**_TO_ASCII, **_SIGNS, 0x3000: " "}
_LONE_MARKS = {0x3099: "\u309b", 0x309A: "\u309c"}
"""A voicing mark with nothing to stand on becomes the spacing one."""


class NormalizeWidthStep:
    """Looks for a character to change first; most texts have none and are returned as they are."""

    def __init__(self, config: NormalizeWidth) -> None:
        characters = (_ASCII_AND_SIGNS if config.punctuation else _ALPHANUMERIC) + "\u3000" * config.space
        self._wide = re.compile(f"[{characters}]+")

    def apply(self, block: Block) -> Result:
        """Drops nothing; which documents changed is counted by the funnel."""
        return Result([None] * len(block), texts=[self._normalized(text) for text in block.texts])

    def _normalized(self, text: str) -> str:
        if text.isascii():
            return text
        if self._wide.search(text):
            text = self._wide.sub(lambda run: run[0].translate(_TABLE), text)
        if _KATAKANA.search(text):
            text = _KATAKANA.sub(_full_width, text)
        return text


def _full_width(run: re.Match[str]) -> str:
    """Half-width katakana in full width, each joined with its voicing mark: ｶﾞ becomes ガ."""
    wide = unicodedata.normalize("NFKC", run[0])
    return wide.translate(_LONE_MARKS)
