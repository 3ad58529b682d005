"""Documents to batches: tokenizer, token datasets, mixture of sources, sequences, loader.

Names are imported on first use, so that a light command does not pay for a heavy one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "IndexedReader": "indexed",
    "IndexedWriter": "indexed",
    "Split": "split",
    "TokenDataset": "dataset",
    "Tokenizer": "tokenizer",
    "sample_texts": "tokenizer_training",
    "tokenize_files": "tokenize",
    "train_on_sample": "tokenizer_training",
    "train_tokenizer": "tokenizer_training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'firstlight.tokens' has no attribute '{name}'")
    return getattr(import_module(f"firstlight.tokens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
