"""Texts made up word by word, and a comparison run over them as a build would."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from firstlight.config.step import StepConfig
from firstlight.corpus.step import Block, Result

VOCABULARY = 3000


class Compared(NamedTuple):
    """What a comparison made of texts, in the order they were given."""

    reasons: list[str | None]
    texts: list[str]
    figures: dict[str, Any]
    counts: dict[str, int]
    folder: Path
    signals: list[str]

    @property
    def dropped(self) -> list[bool]:
        return [reason is not None for reason in self.reasons]


class Writer:
    """Draws texts of words, or of Han characters, with Zipf's frequencies."""

    def __init__(self, seed: int, chinese: bool) -> None:
        self.draw = random.Random(seed)
        self.chinese = chinese
        if chinese:
            self.words = [chr(0x4E00 + 5 * n) for n in range(VOCABULARY)]
        else:
            letters = "etaoinshrdlucmfwyp"
            self.words = ["".join(self.draw.choices(letters, k=3 + n % 7)) + letters[n % 18] for n in range(VOCABULARY)]
        self.weights = [1 / (n + 10) for n in range(VOCABULARY)]

    def some(self, count: int) -> list[str]:
        return self.draw.choices(self.words, self.weights, k=count)

    def text(self, words: Sequence[str]) -> str:
        """The words as prose: commas and full stops here and there."""
        space, comma, stop = ("", "，", "。\n") if self.chinese else (" ", ",", ".\n")
        return space.join(
            word + (stop if n % 17 == 16 else comma if n % 7 == 6 else "") for n, word in enumerate(words)
        )

    def edited(self, words: Sequence[str], share: float) -> list[str]:
        words = list(words)
        for place in self.draw.sample(range(len(words)), round(share * len(words))):
            words[place] = self.some(1)[0]
        return words


@pytest.fixture
def writer() -> Callable[..., Writer]:
    """`writer(seed, chinese)`: see `Writer`."""
    return Writer


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Compared]:
    """`compare(config, units, excluded=…)`: signals, decision and verdicts for lists of texts, one list a unit."""
    pytest.importorskip("daft")
    import pyarrow
    import pyarrow.parquet

    from firstlight.corpus.comparisons import COMPARISONS

    number = 0

    def run(config: StepConfig, units: Sequence[Sequence[str]], excluded: Sequence[int] = ()) -> Compared:
        nonlocal number
        number += 1
        place = tmp_path / f"compared-{number}"
        folder = place / "decision"
        folder.mkdir(parents=True)
        comparison = COMPARISONS[type(config)](config)
        files = []
        blocks = [
            (Block(list(texts), [{} for _ in texts]), (n << 32) + np.arange(len(texts)))
            for n, texts in enumerate(units)
        ]
        for n, (block, ids) in enumerate(blocks):
            files.append(str(place / f"signals-{n}.parquet"))
            pyarrow.parquet.write_table(comparison.signals(block, ids), files[-1])
        gone = []
        if excluded:
            gone = [str(place / "dropped-gone.parquet")]
            table = pyarrow.table(
                {
                    "document": pyarrow.array(sorted(excluded), pyarrow.int64()),
                    "kept": pyarrow.array([0] * len(excluded), pyarrow.int64()),
                }
            )
            pyarrow.parquet.write_table(table, gone[0])
        figures = comparison.decide(files, folder, gone)
        reader = COMPARISONS[type(config)](config)
        reader.load(folder)
        results: list[Result] = [reader.apply(block, ids) for block, ids in blocks]
        reasons = [reason for result in results for reason in result.reasons]
        texts = [
            text for result, (block, _) in zip(results, blocks, strict=True) for text in (result.texts or block.texts)
        ]
        counts: dict[str, int] = {}
        for result in results:
            for name, count in result.counts.items():
                counts[name] = counts.get(name, 0) + count
        return Compared(reasons, texts, figures, counts, folder, files)

    return run
