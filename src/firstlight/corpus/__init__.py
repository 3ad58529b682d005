"""Raw text to a corpus: documents are read, go through the counted steps of a recipe, and are written in shards.

Names are imported on first use: a worker program runs a module of this room by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {"build_corpus": "build", "corpus_fingerprint": "plan", "corpus_table": "table"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'firstlight.corpus' has no attribute '{name}'")
    return getattr(import_module(f"firstlight.corpus.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
