"""Simplified and traditional Chinese, converted with OpenCC.

OpenCC converts by the longest word of its dictionaries (頭髮 and 發現 both have 发 in simplified script). To
simplified, every document with Han characters is converted. To traditional, only those that are mostly simplified:
characters such as 后 and 里 are right in both scripts, and a traditional text would be spoilt. Likewise the
dictionaries of a region are for documents that are mostly traditional; in others the general one converts what
traditional characters there are.
"""

from __future__ import annotations

from typing import Any

from opencc import OpenCC

from firstlight.config.text_steps import ConvertChinese
from firstlight.corpus.step import Block, Result
from firstlight.corpus.text_steps.scripts import HAN_CHARACTER, script_of

_REGION = {"none": "t", "taiwan": "tw", "hong_kong": "hk"}
_SCRIPT = {"simplified": "Hans", "traditional": "Hant"}


class ConvertChineseStep:
    """One converter for the life of the step (two where a region's words become simplified)."""

    def __init__(self, config: ConvertChinese) -> None:
        self.config = config
        region, words = _REGION[config.region], "p" * config.phrases
        if config.to == "simplified":
            self._convert = OpenCC(f"{region}2s{words}").convert
            self._general = OpenCC("t2s").convert if region != "t" else self._convert
        else:
            self._convert = OpenCC(f"s2{region}{words}").convert

    def apply(self, block: Block) -> Result:
        """Drops nothing; counts documents "converted"; metadata `language_script`, where it is there, follows."""
        texts = [self._converted(text) for text in block.texts]
        metadata = list(block.metadata)
        converted = 0
        for place, (text, new) in enumerate(zip(block.texts, texts, strict=True)):
            if new is not text:
                converted += 1
                if "language_script" in metadata[place]:
                    metadata[place] = {**metadata[place], "language_script": _SCRIPT[self.config.to]}
        counts = {"converted": converted} if converted else {}
        return Result([None] * len(block), texts=texts, metadata=metadata, counts=counts)

    def _converted(self, text: str) -> str:
        """The text converted; the same object where nothing changes."""
        if text.isascii() or not HAN_CHARACTER.search(text):
            return text
        convert: Any = self._convert
        if self.config.to == "traditional":
            if script_of(text) != "Hans":
                return text
        elif self._general is not convert and script_of(text) != "Hant":
            convert = self._general
        new = convert(text)
        return text if new == text else new
