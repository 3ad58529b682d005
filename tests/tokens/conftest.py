"""A small tokenizer, trained once, for the tests of this room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer


@pytest.fixture(scope="session")
def tiny_texts(tiny_corpus: dict[str, Path]) -> list[str]:
    """The texts of `tiny_corpus`, all sources."""
    lines = (line for file in tiny_corpus.values() for line in file.read_text(encoding="utf-8").splitlines())
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_texts: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of 1,200 tokens."""
    return train_tokenizer(tiny_texts, 1200, show_progress=False)
