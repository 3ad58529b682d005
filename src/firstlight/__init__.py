"""Firstlight pretrains language models from zero: raw text → data → training → evaluation → export.

Public names are imported on first use, so that `import firstlight` and `firstlight --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CausalLanguageModel": "firstlight.model",
    "MaskedLanguageModel": "firstlight.model",
    "RunConfig": "firstlight.config",
    "chinchilla_optimal": "firstlight.planning.estimates",
    "estimate_training_resources": "firstlight.planning.estimates",
    "evaluate_pretraining": "firstlight.evaluation",
    "load_config": "firstlight.recipe",
    "sample_with_mixture": "firstlight.tokens.sampling",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'firstlight' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
