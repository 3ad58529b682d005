"""Export to a folder that Megatron-LM's --load reads, at any layout: weights only.

The folder says `release` in place of an iteration, by which Megatron begins at iteration 0 with an optimizer and random
numbers of its own. Weights are read, put together and written one tensor at a time; neither a model nor megatron-core
is needed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from firstlight import __version__
from firstlight.interop.huggingface import DTYPES, MARKER, check_target
from firstlight.interop.megatron_checkpoint.arguments import flags, write_arguments
from firstlight.interop.megatron_checkpoint.folder import BACKEND, DESCRIPTION, RELEASE, TOKENIZER, TRACKER
from firstlight.interop.megatron_checkpoint.names import BLOCKS, ENGINE_STATES, STATES, Place, places
from firstlight.interop.megatron_checkpoint.pickles import COMMON
from firstlight.interop.megatron_checkpoint.torch_dist_file import TorchDistFile
from firstlight.interop.model_card import public_facts
from firstlight.interop.weights import Weights, weights_of_model
from firstlight.model import LanguageModel
from firstlight.support.console import command, note, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, write_json
from firstlight.tokens.tokenizer import Tokenizer

CHECKPOINT_VERSION = 3.0
"""Megatron's number for the order of queries, keys and values that it has now."""


def export_megatron(
    model: LanguageModel | Weights,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    dtype: str = "auto",
    step: int = 0,
) -> dict[str, Any]:
    """Write weights, arguments and tokenizer into `folder`; returns {"folder", "parameters", "bytes", "flags"}.

    model: in memory, or the `Weights` of a checkpoint. provenance, dtype: as for `export_huggingface`. step: is noted
    in the checkpoint. flags: those that Megatron's command needs beside --load and --use-checkpoint-args. All rows of
    the vocabulary are written; Megatron pads or cuts them to what its layout needs. The folder is whole or absent.
    Raises ConfigError, naming the field, for what Megatron's GPT model does not compute, or the tensor, for a weight
    beyond float16's range; DataError for a target that is neither empty nor an earlier export, or that the weights
    cannot be written to.
    """
    folder, provenance = Path(folder), provenance or {}
    if dtype == "auto":
        dtype = provenance.get("imported", {}).get("dtype", "float32")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}.")
    weights = model if isinstance(model, Weights) else weights_of_model(model)
    arguments = write_arguments(weights.config)
    check_target(folder)
    with atomic_folder(folder) as temporary:
        release = temporary / RELEASE
        release.mkdir()
        try:
            size = _write_weights(weights, release, DTYPES[dtype])
            _write_common(release / COMMON, arguments, DTYPES[dtype], step)
        except OSError as problem:
            raise DataError(f"{folder}: the weights cannot be written ({problem.strerror or problem}).") from None
        write_json(release / DESCRIPTION, BACKEND)
        tokenizer.save(temporary / TOKENIZER)
        (temporary / TRACKER).write_text(f"{RELEASE}\n", encoding="utf-8")
        description = {"format": "megatron-checkpoint", "firstlight": __version__}
        write_json(temporary / MARKER, {**description, "provenance": public_facts(provenance)})
    return {
        "folder": str(folder),
        "parameters": sum(math.prod(shape) for shape in weights.shapes.values()),
        "bytes": size,
        "flags": flags(arguments),
    }


def show_how_to_load(summary: Mapping[str, Any]) -> None:
    """Tell the words that Megatron's command needs to begin with an export."""
    note("Megatron-LM begins with it at iteration 0 and a fresh optimizer, at any layout, with")
    folder = summary["folder"]
    words = ["--load", folder, "--finetune", "--ckpt-format torch_dist", "--use-checkpoint-args", *summary["flags"]]
    command(" ".join([*words, f"--tokenizer-type HuggingFaceTokenizer --tokenizer-model {folder}/{TOKENIZER}"]))


def _write_weights(weights: Weights, folder: Path, dtype: torch.dtype) -> int:
    """Write every tensor, a block of a stacked one at a time; returns their bytes."""
    layers = weights.config.num_hidden_layers
    entries = places(weights.config, weights.shapes)
    total = sum(math.prod(entry.shape) for entry in entries) * dtype.itemsize
    with TorchDistFile(folder, dtype) as file, progress("export", total, "bytes") as bar:
        for entry in entries:
            tensor = entry.join(weights.read)
            if entry.layer is None:
                file.write(entry.key, tensor, (0,) * tensor.ndim, tensor.shape)
            else:
                file.write(entry.key, tensor[None], (entry.layer, *(0,) * tensor.ndim), (layers, *tensor.shape))
            bar.advance(math.prod(entry.shape) * dtype.itemsize)
        _write_states(file, entries, layers)
    return total


def _write_states(file: TorchDistFile, entries: list[Place], layers: int) -> None:
    """The states of 8-bit arithmetic, empty: a Megatron that asks for one that is not there refuses the checkpoint."""
    modules = {f"{entry.module}".removesuffix(".") for entry in entries}
    always = (*STATES, ENGINE_STATES[0])
    for module in (*always, *(module for module in ENGINE_STATES if module in modules)):
        for layer in range(layers):
            file.write_empty(f"{BLOCKS}{module}._extra_state/shard_{layer}_{layers}")
    file.write_empty("decoder.final_layernorm._extra_state/shard_0_1")


def _write_common(path: Path, arguments: Mapping[str, Any], dtype: torch.dtype, step: int) -> None:
    layout = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "ckpt_format": "torch_dist"}
    namespace = argparse.Namespace(**arguments, **layout, params_dtype=dtype, make_vocab_size_divisible_by=128)
    content = {"args": namespace, "checkpoint_version": CHECKPOINT_VERSION, "iteration": step}
    torch.save(content, path)
