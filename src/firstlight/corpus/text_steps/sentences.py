"""Chinese text in sentences: lines that are none go, and documents with too few of them.

The idea is C4's (Raffel et al. 2020, section 2.2) with Chinese marks and characters for units, since its rules count
words between spaces. At least ten Han characters is WuDaoCorpora's rule (Yuan et al. 2021); the other defaults are our
own, chosen on prose, manuals and poems. Poems keep their titles and short lines, and text that was broken at some
width (old pages, manuals) keeps the lines in which a sentence goes on in the next one.
"""

from __future__ import annotations

import re
from collections import Counter

from firstlight.config.text_steps import ChineseSentences
from firstlight.corpus.step import Block, Result
from firstlight.corpus.text_steps.length import WHITE_SPACE
from firstlight.corpus.text_steps.scripts import HAN, HAN_CHARACTER

NOT_CHINESE = "few Han characters"
NO_TEXT = "few Han characters left"
FEW_SENTENCES = "few sentences"

_SPACE = re.compile(r"\s+")
_HAN_RUN = re.compile(f"[{HAN}]+")
_SENTENCE_END = re.compile(r"[。！？…⋯．!?]+|\.(?!\S)")
_CLAUSE_MARKS = "，。！？；：、…,.!?;:\n"
_CLAUSE_END = re.compile(f"[{_CLAUSE_MARKS}]+")
_BESIDES = re.compile(f"[^{HAN}{_CLAUSE_MARKS}]+")
_CLOSING = "）)】》〉］]\"'" + WHITE_SPACE
_CITATIONS = re.compile(r"(?:\s?\[\d{1,3}(?:[-–,]\d{1,3})*\])+\Z")
_VERSE_SAMPLE = 2000
"""Characters at the start of a document by which it is told whether it is verse."""
_MIN_CLAUSES = 4


class ChineseSentencesStep:
    """Judges a document's Han characters, removes lines, then judges what is left."""

    def __init__(self, config: ChineseSentences) -> None:
        self.config = config

    def apply(self, block: Block) -> Result:
        """Reasons "few Han characters", "few Han characters left", "few sentences"; counts "lines removed", "verse"."""
        reasons, texts, counts = [], [], Counter[str]()
        for text in block.texts:
            reason, new = self._judge(text, counts)
            reasons.append(reason)
            texts.append(new)
        return Result(reasons, texts=texts, counts=counts)

    def _judge(self, text: str, counts: Counter[str]) -> tuple[str | None, str]:
        characters = len(text) - sum(map(len, _SPACE.findall(text)))
        if count_han(text) < self.config.min_han_share * characters:
            return NOT_CHINESE, text
        left = text
        if self.config.keep_verse and is_verse(text, self.config.terminal_marks):
            counts["verse"] += 1
        else:
            lines = text.split("\n")
            kept = self._kept(lines)
            if len(kept) < len(lines):
                counts["lines removed"] += len(lines) - len(kept)
                left = "\n".join(kept).strip("\n")
        if count_han(left) < self.config.min_han:
            return NO_TEXT, text
        if not self._has_sentences(left):
            return FEW_SENTENCES, text
        return None, left

    def _kept(self, lines: list[str]) -> list[str]:
        """Empty lines, sentences, and lines whose sentence goes on in the line below, which is kept."""
        kept, goes_on = [], False
        for number in range(len(lines) - 1, -1, -1):
            line = lines[number]
            empty = not line.strip(WHITE_SPACE)
            if self._has_end(line):
                goes_on = count_han(line) >= self.config.min_line_han or (
                    number > 0 and self._is_wrapped(lines[number - 1])
                )
            else:
                goes_on = goes_on and self._is_wrapped(line)
            if empty or goes_on:
                kept.append(line)
        return kept[::-1]

    def _has_end(self, line: str) -> bool:
        if not self.config.terminal_marks:
            return True
        end = line.rstrip(_CLOSING)
        if line.endswith("]"):
            end = _CITATIONS.sub("", line).rstrip(_CLOSING)
        return end.endswith(tuple(self.config.terminal_marks)) and not end.endswith("..")

    def _is_wrapped(self, line: str) -> bool:
        """Whether the line is long prose that ends within a sentence."""
        least = self.config.min_wrapped_han
        return (
            least is not None
            and count_han(line) >= least
            and bool(_CLAUSE_END.search(line))
            and not self._has_end(line)
        )

    def _has_sentences(self, text: str) -> bool:
        left = self.config.min_sentences
        start = 0
        for end in _SENTENCE_END.finditer(text):
            if left <= 0:
                break
            left -= bool(HAN_CHARACTER.search(text, start, end.start()))
            start = end.end()
        return left <= 0


def count_han(text: str) -> int:
    """Han characters of a text."""
    return 0 if text.isascii() else sum(map(len, _HAN_RUN.findall(text)))


def is_verse(text: str, terminal_marks: str) -> bool:
    """Whether the clauses of a text are those of verse, by its first 2,000 characters.

    Either a third of the lines or more (all but titles, poets and prefaces) end with a mark, and nine in ten of their
    clauses have 2 to 9 characters; or all lines are like that and most clauses have the same 4, 5, 6 or 7 characters.
    """
    lines = [line for line in (line.strip(WHITE_SPACE) for line in text[:_VERSE_SAMPLE].split("\n")) if line]
    marked = [line for line in lines if line.endswith(tuple(terminal_marks or "。"))]
    if 3 * len(marked) >= len(lines) and _are_short(_clauses(marked)):
        return True
    lengths = _clauses(lines)
    return _are_short(lengths) and max(lengths.count(length) for length in (4, 5, 6, 7)) >= 0.6 * len(lengths)


def _clauses(lines: list[str]) -> list[int]:
    """Han characters of each clause that has any."""
    return [len(clause) for clause in _CLAUSE_END.split(_BESIDES.sub("", "\n".join(lines))) if clause]


def _are_short(lengths: list[int]) -> bool:
    return len(lengths) >= _MIN_CLAUSES and sum(2 <= length <= 9 for length in lengths) >= 0.9 * len(lengths)
