"""From a step's settings to the object that does it, and to the files whose content it depends on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from firstlight.config.duplicates import Decontaminate, ExactDuplicates, NearDuplicates, RepeatedLines
from firstlight.config.step import StepConfig
from firstlight.config.text_steps import Blocklist, Classifier
from firstlight.corpus.step import Comparison, Step

COMPARISONS = (ExactDuplicates, NearDuplicates, RepeatedLines)
"""Steps that need all documents; each ends a phase of the build."""


def make_step(config: StepConfig) -> Step:
    """The step that works on one block at a time; loads what it needs (a model, a list)."""
    return _room(config).STEPS[type(config)](config)


def make_comparison(config: StepConfig) -> Comparison:
    """The step that compares all documents."""
    return _room(config).COMPARISONS[type(config)](config)


def _room(config: StepConfig) -> Any:
    """The package that does steps like this one; imported when one is made, for each brings its own libraries."""
    name = "classifier" if isinstance(config, Classifier) else _ROOMS[type(config).__module__]
    return import_module(f"firstlight.corpus.{name}")


_ROOMS = {
    "firstlight.config.rules": "rules",
    "firstlight.config.text_steps": "text_steps",
    "firstlight.config.duplicates": "comparisons",
}


def step_files(config: StepConfig) -> list[str]:
    """Files, folders and globs that shape what a step does, beside its settings."""
    match config:
        case Classifier():
            return [config.model]
        case Blocklist():
            return [*config.urls, *config.hashes]
        case Decontaminate():
            return [file for files in config.against.values() for file in files]
        case _:
            return []
