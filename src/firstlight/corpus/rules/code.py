"""Source code: lengths of lines, shares of letters and of data, files that programs wrote, licence headers.

Limits of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code"), Li et al. 2023 (StarCoder) and Lozhkov
et al. 2024 (StarCoder2 and The Stack v2).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from firstlight.config.rules import CodeRules
from firstlight.corpus.compiled import compiled
from firstlight.corpus.rules.characters import IN_WORD, LETTER, character_flags, flags_at
from firstlight.corpus.rules.data_runs import data_runs
from firstlight.corpus.rules.headers import licence_header, says_generated
from firstlight.corpus.rules.judge import limits, verdict
from firstlight.corpus.step import Block, Result

EMPTY = "empty"
_REASONS = (
    EMPTY,
    "long line",
    "long lines on average",
    "many lines",
    "few letters and digits",
    "few letters",
    "long data",
    "mostly data",
)
GENERATED = "generated"
LICENCE = "licence header"


class CodeStep:
    """Rules about numbers first, then about what the beginning of a file says."""

    def __init__(self, config: CodeRules) -> None:
        self.config = config
        self._limits = limits(
            config.max_line_characters,
            config.max_mean_line_characters,
            config.max_lines,
            config.min_alphanumeric,
            config.min_alphabetic,
            config.max_data_run,
            config.max_data_characters,
        )

    def apply(self, block: Block) -> Result:
        """Reasons as "long line", "mostly data", "generated", "licence header"; counts "licence headers removed"."""
        reasons = list(verdict(_judge(*block.utf8(), character_flags(), self._limits), _REASONS).reasons)
        texts = list(block.texts)
        counts = Counter[str]()
        for place, text in enumerate(texts):
            if reasons[place] is None:
                reasons[place], texts[place] = self._judge_beginning(text, counts)
        return Result(reasons, texts=texts, counts=counts)

    def _judge_beginning(self, text: str, counts: Counter[str]) -> tuple[str | None, str]:
        """Why a document is dropped for what it says of itself, and the text that stays."""
        header = licence_header(text)
        body = text if header is None else text[: header[0]] + text[header[1] :].lstrip("\r\n")
        lines = self.config.generated_lines
        if self.config.drop_generated and (says_generated(text, lines) or says_generated(body, lines)):
            return GENERATED, text
        if header is None or self.config.licence_header == "keep":
            return None, text
        if self.config.licence_header == "drop":
            return LICENCE, text
        counts["licence headers removed"] += 1
        return (None if body.strip() else EMPTY), body


@compiled
def _judge(data: Any, offsets: Any, table: Any, limits: Any) -> Any:
    codes = np.zeros(len(offsets) - 1, dtype=np.int8)
    for text in range(len(codes)):
        codes[text] = _judge_text(data, offsets[text], offsets[text + 1], table, limits)
    return codes


@compiled
def _judge_text(data: Any, start: int, end: int, table: Any, limits: Any) -> int:
    """Rules about lines (their ends are no part of them), letters, digits and data."""
    characters = alphanumeric = letters = lines = in_lines = longest = length = 0
    place = start
    while place < end:
        flags, width = flags_at(data, place, table)
        byte = data[place]
        place += width
        characters += 1
        letters += (flags & LETTER) != 0
        alphanumeric += (flags & IN_WORD) != 0 and byte != 95
        if byte == 10:
            lines += 1
            in_lines += length
            longest = max(longest, length)
            length = 0
        elif byte != 13:
            length += 1
    lines += length > 0
    in_lines += length
    longest = max(longest, length)
    if in_lines == 0:
        return 1
    if longest > limits[0]:
        return 2
    if in_lines / lines > limits[1]:
        return 3
    if lines > limits[2]:
        return 4
    if alphanumeric / characters < limits[3]:
        return 5
    if letters / characters < limits[4]:
        return 6
    in_data, longest_run = data_runs(data, start, end)
    if longest_run > limits[5]:
        return 7
    return 8 if in_data / characters > limits[6] else 0
