"""Other projects' training configurations as recipes: Nanotron, torchtitan, Hugging Face config.json, Megatron-LM.

What kind a file is follows from its contents. What has no counterpart is listed with its value and the reason, never
dropped in silence; the recipe is checked before it is given out.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from firstlight.interop.import_config import huggingface, megatron, nanotron, torchtitan
from firstlight.interop.import_config.carried import Left, Source
from firstlight.recipe import parse_config
from firstlight.support.errors import ConfigError
from firstlight.support.strict_yaml import read_yaml

MOST_BYTES = 10_000_000
"""A configuration with more is something else."""


@dataclass(frozen=True)
class ImportedConfig:
    """A recipe, and what could not be carried into it."""

    kind: str
    tree: dict[str, Any]
    left: list[Left]

    def recipe(self) -> str:
        """The recipe in YAML, with what was left as comments above it."""
        lines = [f"# From a configuration of {self.kind}."]
        if self.left:
            lines.append("# Not carried:")
            lines += [f"#   {left}".replace("\n", " ") for left in self.left]
        return "\n".join(lines) + "\n" + yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True)


def import_config(file: Path) -> ImportedConfig:
    """The recipe that a file of another project amounts to; ConfigError when it is of no known kind."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{file}: larger than any training configuration.")
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file.") from None
    except OSError as problem:
        raise ConfigError(f"{file}: {problem.strerror}.") from None
    imported = _imported(text, file)
    parse_config(imported.tree, f"{file} as a recipe")
    return imported


def _imported(text: str, file: Path) -> ImportedConfig:
    origin = str(file)
    if "--num-layers" in text and "--hidden-size" in text:
        return ImportedConfig("Megatron-LM", *megatron.read(text, origin))
    tree = _tree(text)
    if not isinstance(tree, dict):
        raise _unknown(origin)
    source = Source(tree)
    if "model_type" in tree:
        return ImportedConfig("Hugging Face transformers", *huggingface.read(tree, origin))
    if isinstance(tree.get("tokens"), dict) and isinstance(tree.get("parallelism"), dict):
        return ImportedConfig("Nanotron", *nanotron.read(source, origin))
    if isinstance(tree.get("model"), dict) and {"training", "lr_scheduler", "parallelism", "job"} & tree.keys():
        return ImportedConfig("torchtitan", *torchtitan.read(source))
    raise _unknown(origin)


def _tree(text: str) -> Any:
    for reader, problems in (
        (json.loads, ValueError),
        (tomllib.loads, tomllib.TOMLDecodeError),
        (read_yaml, yaml.YAMLError),
    ):
        try:
            return reader(text)
        except (problems, RecursionError):
            continue
    return None


def _unknown(origin: str) -> ConfigError:
    return ConfigError(
        f"{origin}: no configuration that is known here: Nanotron's YAML, torchtitan's TOML, a config.json of Hugging "
        "Face, or a command or script with Megatron-LM's flags."
    )
