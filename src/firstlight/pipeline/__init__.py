"""The whole way, from text to an exported model: one function for every verb of the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "build_corpus": "verbs",
    "compare_tokenizers": "verbs",
    "doctor": "diagnosing",
    "evaluate": "scoring",
    "evaluate_tasks": "task_scoring",
    "export": "verbs",
    "fill": "filling",
    "generate": "verbs",
    "import_model": "importing",
    "mixture": "mixing",
    "plan": "planning",
    "prepare": "stages",
    "quickstart": "first_run",
    "report": "reporting",
    "tokenize": "verbs",
    "train": "run_training",
    "train_classifier": "verbs",
    "train_tokenizer": "verbs",
    "verify": "verifying",
    "watch": "watching",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'firstlight.pipeline' has no attribute '{name}'")
    return getattr(import_module(f"firstlight.pipeline.{_HOME[name]}"), name)
