"""A classifier of documents by their words: learnt from good and bad examples, applied to a corpus as a step.

Names are imported on first use: applying a classifier needs numba, training one also scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "STEPS": "step",
    "ClassifierStep": "step",
    "TrainedClassifier": "model",
    "classifier_table": "held_out",
    "train_classifier": "train",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'firstlight.corpus.classifier' has no attribute '{name}'")
    return getattr(import_module(f"firstlight.corpus.classifier.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
