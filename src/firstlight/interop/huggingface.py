"""Export to a folder that `transformers` loads: `AutoModelForCausalLM` or `AutoModelForMaskedLM`, and `AutoTokenizer`.

The tables in `names.py` say how a class names the tensors and which of them it fuses or turns around, those in
`classes.py` how its config.json says what `ModelConfig` says. `transformers` is not needed to write the folder, nor a
model: weights are read, turned and written one tensor at a time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from firstlight import __version__
from firstlight.interop.classes import class_of_model
from firstlight.interop.config_json import write_config
from firstlight.interop.model_card import model_card, public_facts
from firstlight.interop.names import renamed
from firstlight.interop.safetensors_file import write_safetensors
from firstlight.interop.weights import Weights, weights_of_model
from firstlight.model import LanguageModel
from firstlight.support.console import note, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, read_json, write_json
from firstlight.tokens.tokenizer import Tokenizer

MARKER = "firstlight.json"
"""Names the folder as an export (format, version, provenance), so that a later export may replace it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_huggingface(
    model: LanguageModel | Weights,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
    dtype: str = "auto",
    origin: Path | None = None,
) -> dict[str, Any]:
    """Write weights, configuration, tokenizer and model card into `folder`; returns what was written.

    model: in memory, or the `Weights` of a checkpoint. provenance: JSON-like facts of the run; those that may be
    published (`model_card.PUBLIC`) go to the card and to `firstlight.json`. Weights above `max_shard_bytes` are split
    over several files with an index. dtype: "float32", "bfloat16" or "float16"; "auto": the type that the weights of
    an imported model had (`provenance["imported"]["dtype"]`), else float32. origin: folder with the configuration and
    the tokenizer's files of an imported model, which are given back. Returns {"folder", "architecture", "parameters",
    "bytes", "files", "padding_rows", "unused_rows"}: the last rows of the vocabulary that were left out because
    rounding up had added them, and those that no token has and that stay because the vocabulary's size was given. The
    folder is whole or absent. Raises ConfigError, naming the field, for what no class of Hugging Face's represents,
    or the tensor, for a weight beyond float16's range; DataError for a target that is neither empty nor an earlier
    export, or that the weights cannot be written to.
    """
    folder, provenance = Path(folder), provenance or {}
    if dtype == "auto":
        dtype = provenance.get("imported", {}).get("dtype", "float32")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}.")
    if max_shard_bytes < 1:
        raise ConfigError(f"max_shard_bytes is {max_shard_bytes}; at least 1 is due.")
    weights = model if isinstance(model, Weights) else weights_of_model(model)
    settings = write_config(weights.config, tokenizer, dtype)
    vocab_size = settings["vocab_size"]
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocabulary {vocab_size}; "
            "they do not belong together."
        )
    check_target(folder)

    summary: dict[str, Any] = {
        "folder": str(folder),
        "architecture": settings["architectures"][0],
        "padding_rows": weights.config.vocab_padding,
        "unused_rows": vocab_size - tokenizer.vocab_size,
    }
    facts = public_facts(provenance)
    with atomic_folder(folder) as temporary:
        if origin is None:
            _write_small_files(temporary, settings, tokenizer, causal=weights.config.causal)
        else:
            _give_back(temporary, origin, settings)
        try:
            summary |= _write_weights(weights, temporary, DTYPES[dtype], max_shard_bytes)
        except OSError as problem:
            raise DataError(f"{folder}: the weights cannot be written ({problem.strerror or problem}).") from None
        (temporary / "README.md").write_text(model_card(settings, summary, facts), encoding="utf-8")
        description = {"format": "huggingface", "firstlight": __version__, "padding_rows": summary["padding_rows"]}
        write_json(temporary / MARKER, {**description, "provenance": facts})
    if summary["padding_rows"]:
        note(f"export: {summary['padding_rows']} padding rows of the vocabulary left out; {vocab_size} rows remain.")
    if summary["unused_rows"]:
        note(f"export: no token has {summary['unused_rows']} of the {vocab_size} vocabulary rows.")
    return summary


def _write_small_files(folder: Path, settings: Mapping[str, Any], tokenizer: Tokenizer, causal: bool) -> None:
    tokenizer.save(folder)
    write_json(folder / "config.json", settings)
    if causal:
        ids = {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json(folder / "generation_config.json", {key: value for key, value in ids.items() if value is not None})


def _give_back(folder: Path, origin: Path, settings: Mapping[str, Any]) -> None:
    """The files that a model was imported with; its configuration names the class with the head, and the new type."""
    for file in origin.iterdir():
        if file.is_symlink() or not file.is_file():
            raise DataError(
                f"{file}: not a file, or a link; an import puts only files there, and nothing else is exported."
            )
        shutil.copyfile(file, folder / file.name)
    given = read_json(origin / "config.json", "model configuration")
    given.pop("auto_map", None)  # code that is not here
    changed = {name: settings["dtype"] for name in ("dtype", "torch_dtype") if name == "dtype" or name in given}
    write_json(folder / "config.json", {**given, "architectures": settings["architectures"], **changed})


def _write_weights(weights: Weights, folder: Path, dtype: torch.dtype, max_shard_bytes: int) -> dict[str, Any]:
    """Write model.safetensors, or numbered shards and their index. One tensor is held at a time."""
    names = class_of_model(weights.config).names
    entries = renamed(names, weights.config, weights.shapes)
    tensors = {entry.name: entry for entry in entries if entry.written}
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    shards = _plan_shards(
        ((name, math.prod(tensor.shape) * dtype.itemsize) for name, tensor in tensors.items()), max_shard_bytes
    )
    file_names = [
        "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    total = parameters * dtype.itemsize
    with progress("export", total, "bytes") as bar:
        for file_name, shard in zip(file_names, shards, strict=True):
            shapes = {name: tensors[name].shape for name in shard}
            write_safetensors(
                folder / file_name, shapes, lambda name: tensors[name].join(weights), dtype, wrote=bar.advance
            )
    if len(shards) > 1:
        places = {name: file for file, shard in zip(file_names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total, "total_parameters": parameters}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)
    return {"parameters": parameters, "bytes": total, "files": file_names}


def _plan_shards(sizes: Iterator[tuple[str, int]], max_shard_bytes: int) -> list[dict[str, int]]:
    """Weights in order, as many to a shard as fit; one that is larger than a shard gets its own."""
    shards: list[dict[str, int]] = [{}]
    for name, size in sizes:
        if shards[-1] and sum(shards[-1].values()) + size > max_shard_bytes:
            shards.append({})
        shards[-1][name] = size
    return shards


def check_target(folder: Path) -> None:
    """DataError when an export cannot take the place of what is at `folder`."""
    if folder.is_file():
        raise DataError(f"{folder}: a file, where the export needs a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise DataError(
            f"{folder}: not empty, and not an earlier export (it has no {MARKER}); give an empty or a new folder."
        )
