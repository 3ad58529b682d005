"""Looking around is quick: help, recipes and configuration load no engine; and every public name can be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import firstlight

ENGINES = {
    "accelerate",
    "daft",
    "datasets",
    "ftfy",
    "gigatoken",
    "huggingface_hub",
    "matplotlib",
    "mlflow",
    "numba",
    "opencc",
    "pandas",
    "pyarrow",
    "ray",
    "safetensors",
    "sklearn",
    "tensorboard",
    "tokenizers",
    "torch",
    "trackio",
    "trafilatura",
    "transformers",
    "wandb",
}
SLOW = {"numpy", "pydantic"}


def loaded_by(*arguments: str) -> set[str]:
    """Top-level packages that `python ARGUMENTS` imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 20
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_help_loads_neither_engines_nor_validation() -> None:
    loaded = loaded_by("-m", "firstlight", "--help")
    assert "firstlight" in loaded
    assert not loaded & (ENGINES | SLOW)


@pytest.mark.parametrize("module", ["firstlight", "firstlight.cli"])
def test_the_way_in_is_light(module: str) -> None:
    assert not loaded_by("-c", f"import {module}") & (ENGINES | SLOW)


@pytest.mark.parametrize("module", ["firstlight.config", "firstlight.documents", "firstlight.planning"])
def test_describing_a_run_needs_no_engine(module: str) -> None:
    assert not loaded_by("-c", f"import {module}") & ENGINES


@pytest.mark.parametrize("name", firstlight.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(firstlight, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'CausalLangaugeModel'"):
        firstlight.CausalLangaugeModel  # noqa: B018
