"""Documents that are too short or too long, counted in characters between the white space at both ends."""

from __future__ import annotations

from firstlight.config.text_steps import Length
from firstlight.corpus.step import Block, Result

TOO_SHORT = "too short"
TOO_LONG = "too long"
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The characters of Unicode's property White_Space."""


class LengthStep:
    """Drops by length alone; texts stay as they are, white space included."""

    def __init__(self, config: Length) -> None:
        self.config = config

    def apply(self, block: Block) -> Result:
        """Reasons "too short" and "too long"."""
        return Result([self._reason(text) for text in block.texts])

    def _reason(self, text: str) -> str | None:
        length = len(text.strip(WHITE_SPACE))
        if length < self.config.min_characters:
            return TOO_SHORT
        if self.config.max_characters is not None and length > self.config.max_characters:
            return TOO_LONG
        return None
