"""Import of a folder that `save_pretrained` wrote, or that lies on the hub: configuration and weights.

The weights are read from safetensors, renamed and split by the tables that export reads the other way round, and
become fp32, which holds every fp16 and bf16 number exactly. `transformers` is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from firstlight.config import ModelConfig
from firstlight.interop.classes import HuggingFaceClass
from firstlight.interop.config_json import read_config
from firstlight.interop.names import HEAD_PARTS, Names, Renamed, renamed
from firstlight.interop.saved_weights import SavedWeights
from firstlight.interop.weights import parameter_shapes
from firstlight.model.init import initial_value
from firstlight.support.console import note, progress, warn
from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import read_json
from firstlight.support.hub import place_or_hub

CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
MODEL_FILES = (CONFIG, "generation_config.json")
HUB_FILES = (*MODEL_FILES, *TOKENIZER_FILES, "model*.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class ImportedModel:
    """What a folder of Hugging Face's holds, in Firstlight's terms."""

    folder: Path
    theirs: HuggingFaceClass
    config: ModelConfig
    """Resolved."""
    tensors: dict[str, Tensor]
    """Every parameter by Firstlight's name, fp32, on the CPU."""
    dtype: str
    """The type that the weights were saved in; float32 where they had several."""
    files: list[Path]
    """Configuration and weights."""
    drawn: list[str]
    """Parameters that the files do not have and that were drawn anew."""


def model_folder(source: str | Path) -> Path:
    """The folder of a model: `source` itself, or what the hub has under this name. DataError when there is none."""
    folder = place_or_hub(source, HUB_FILES)
    if not folder.is_dir():
        what = "a file" if folder.is_file() else "no such folder"
        raise DataError(f"{source}: {what}; the folder of a Hugging Face model is due, or its name on the hub.")
    return folder


def read_huggingface(folder: Path, seed: int = 0) -> ImportedModel:
    """Read a model's folder: config.json and safetensors, whole in memory in fp32.

    seed: of a head that the folder lacks and that is drawn anew, which is said. Raises ConfigError, naming the field,
    for what Firstlight does not compute; DataError for tensors that are missing, of the wrong shape, of no use here,
    or saved twice with different content, and for weights that are not in safetensors files.
    """
    content = _read_config_file(folder)
    theirs, config = read_config(content, str(folder / CONFIG))
    saved = SavedWeights(folder)
    if config.num_hidden_layers > len(saved.names):
        raise DataError(
            f"{folder}: {CONFIG} describes {config.num_hidden_layers} blocks, and the files hold {len(saved.names)} "
            "tensors; one of the two is of another model."
        )
    shapes = parameter_shapes(config)
    entries = renamed(theirs.names, config, shapes)
    places, left_out = _match(folder, theirs.names, entries, saved.names)
    if left_out:
        note(f"{folder}: left out, because a language model does without: {', '.join(sorted(left_out))}.")
    drawn = _missing(folder, entries, places, set(shapes))
    found = {entry: places[entry.name] for entry in entries if entry.name in places}
    for entry, name in found.items():
        if saved.shape(name) != entry.shape:
            raise DataError(
                f"{folder}: '{name}' has shape {list(saved.shape(name))}, and {CONFIG} makes it {list(entry.shape)}."
            )
    dtypes = {saved.dtype(name) for name in found.values()}
    tensors = _read(folder, saved, found)
    tensors |= {name: initial_value(name, shapes[name], config, seed) for name in drawn}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    files = [folder / CONFIG, *saved.files]
    return ImportedModel(folder, theirs, config, tensors, str(dtype).removeprefix("torch."), files, drawn)


def _read_config_file(folder: Path) -> dict[str, object]:
    try:
        content = read_json(folder / CONFIG, "model configuration")
    except FirstlightError as problem:
        raise DataError(str(problem)) from None
    if not isinstance(content, dict):
        raise DataError(f"{folder / CONFIG}: not a model configuration (no JSON object).")
    return content


def _match(folder: Path, names: Names, entries: list[Renamed], saved: set[str]) -> tuple[dict[str, str], list[str]]:
    """({name that is due: name in the files}, names that are left out). DataError for a name of no use here.

    A class without a head is saved without the prefix; old files call a norm's parameters gamma and beta.
    """
    due = {entry.name for entry in entries}
    places: dict[str, str] = {}
    left_out = []
    for name in sorted(saved):
        modern = re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))
        wanted = next((spelling for spelling in (modern, names.prefix + modern) if spelling in due), None)
        if wanted is not None:
            places.setdefault(wanted, name)
        elif names.is_unused(name):
            left_out.append(name)
        else:
            raise DataError(
                f"{folder}: holds '{name}', for which the model that {CONFIG} describes has no place; "
                "save the model without it, or mend the configuration."
            )
    return places, left_out


def _missing(folder: Path, entries: list[Renamed], places: Mapping[str, str], due: set[str]) -> list[str]:
    """The parameters to draw anew: the head where all of it is missing. DataError when something else is."""
    missing = due - {source for entry in entries if entry.name in places for source in entry.sources}
    head = {name for name in due if name.startswith(HEAD_PARTS)}
    for entry in entries:
        lacking = missing.intersection(entry.sources)
        if lacking and not (lacking <= head <= missing):
            raise DataError(f"{folder}: holds no '{entry.name}', which the model that {CONFIG} describes needs.")
    if missing:
        warn(f"{folder}: has no head over the vocabulary; {', '.join(sorted(missing))} are drawn anew.")
    return sorted(missing)


def _read(folder: Path, saved: SavedWeights, found: Mapping[Renamed, str]) -> dict[str, Tensor]:
    """Every parameter that the files hold, in fp32. DataError for one that is there twice and differs."""
    tensors: dict[str, Tensor] = {}
    first: dict[tuple[str, ...], str] = {}
    size = sum(4 * torch.Size(entry.shape).numel() for entry in found)
    with progress("import", size, "bytes") as bar:
        for entry, name in found.items():
            tensor = saved.read(name)
            other = first.setdefault(entry.sources, name)
            if other == name:
                parts = entry.split(tensor).items()
                tensors |= {source: part.to(torch.float32).contiguous() for source, part in parts}
            elif not torch.equal(saved.read(other), tensor):
                raise DataError(
                    f"{folder}: '{name}' and '{other}' differ, where the model that {CONFIG} describes has one tensor "
                    "for both (tie_word_embeddings)."
                )
            bar.advance(4 * tensor.numel())
    return tensors
