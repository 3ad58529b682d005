"""Import of a Megatron checkpoint: configuration and weights, whatever tensor and pipeline sizes saved it.

The shape is that of the arguments that the checkpoint keeps, or of a recipe. Weights become fp32, which holds every
fp16 and bf16 number exactly; states of the optimizer are left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.config import ModelConfig, RunConfig
from firstlight.interop.huggingface import DTYPES
from firstlight.interop.megatron_checkpoint.arguments import read_arguments, write_arguments
from firstlight.interop.megatron_checkpoint.folder import checkpoint_folder, open_tensors
from firstlight.interop.megatron_checkpoint.names import BLOCKS, EMBEDDING, Place, places
from firstlight.interop.megatron_checkpoint.pickles import COMMON, read_common
from firstlight.interop.weights import parameter_shapes
from firstlight.recipe import parse_config
from firstlight.support.console import note, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.parts import Part
from firstlight.training.checkpoint import CheckpointTensors

_NO_WEIGHTS = re.compile(r"^(chained_\d+\.)?(optimizer|rng_state|rerun_state_machine_state)\b")
"""Names of what is not a weight."""
_FOREIGN = (
    (r"\.mlp\.(local_)?experts|\.mlp\.router|shared_experts", "a mixture of experts"),
    (r"linear_(q|kv)_(down|up)_proj|linear_q_proj|kv_layernorm", "multi-latent attention"),
    (r"^mtp\.|\.mtp\.", "multi-token prediction"),
    (r"\.mixer\.", "Mamba layers"),
    (r"^(module|model)\.", "names of NeMo's or of a wrapped model"),
    (r"pooler|lm_head|tokentype_embeddings|binary_head", "a BERT model"),
)
"""What names say of a model that Firstlight has not."""


@dataclass(frozen=True)
class MegatronModel:
    """What a checkpoint of Megatron's holds, in Firstlight's terms."""

    folder: Path
    """Of the iteration."""
    config: ModelConfig
    """Resolved."""
    tensors: dict[str, Tensor]
    """Every parameter by Firstlight's name, fp32, on the CPU."""
    dtype: str
    """The type that the weights were saved in; float32 where they had several."""
    files: list[Path]
    iteration: int | None


def read_megatron(source: Path, tokenizer_size: int, recipe: RunConfig | None = None) -> MegatronModel:
    """Read a checkpoint, whole in memory in fp32.

    source: a folder with `latest_checkpointed_iteration.txt`, or that of one iteration. tokenizer_size: tokens that the
    vocabulary has; rows beyond are padding. recipe: whose model section says the shape in place of the checkpoint's
    arguments. Raises ConfigError, naming the argument, for what Firstlight does not compute; DataError or
    CheckpointError for files and tensors that are missing, damaged, of another shape or of no use here.
    """
    folder = checkpoint_folder(source)
    common = read_common(folder / COMMON)
    saved = open_tensors(folder)
    names = {name for name in saved.shapes if not _NO_WEIGHTS.match(name)}
    _refuse_foreign(folder, names)
    rows = _rows(folder, saved)
    if tokenizer_size > rows:
        raise ConfigError(
            f"{folder}: the tokenizer has {tokenizer_size} tokens and the model's vocabulary {rows}; "
            "give the one that belongs to it with --tokenizer."
        )
    if recipe is None:
        config = _config_of_arguments(common.arguments, folder / COMMON, rows, rows - tokenizer_size)
    else:
        config = _config_of_recipe(recipe, rows, rows - tokenizer_size)
    origin = "the recipe" if recipe else "its arguments"
    layers = config.num_hidden_layers
    if layers != (there := _blocks(saved, names)):
        raise DataError(f"{folder}: holds {there} blocks, and the model of {origin} has {layers}.")
    entries = places(config, parameter_shapes(config))
    found = _match(folder, entries, saved, names, origin)
    dtypes = {saved.dtype(name) for name, _ in found.values()}
    for name, _ in found.values():
        if saved.dtype(name) not in DTYPES.values():
            kind = str(saved.dtype(name)).removeprefix("torch.")
            raise DataError(f"{folder}: '{name}' is of type {kind}; {', '.join(DTYPES)} can be read.")
    tensors = _read(saved, found, layers)
    if len(names) < len(saved.shapes):
        note(f"{folder}: the optimizer's states are left out.")
    dtype = str(dtypes.pop() if len(dtypes) == 1 else torch.float32).removeprefix("torch.")
    files = sorted({folder / place.relative_path for place in saved.places})
    return MegatronModel(folder, config, tensors, dtype, [folder / COMMON, *files], common.iteration)


def _refuse_foreign(folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        for pattern, what in _FOREIGN:
            if re.search(pattern, name):
                raise DataError(
                    f"{folder}: holds '{name}', so it has {what}; Firstlight reads Megatron's GPT models that are "
                    "GPT-2- or LLaMA-like."
                )


def _rows(folder: Path, saved: CheckpointTensors) -> int:
    """Of the vocabulary."""
    shape = saved.shapes.get(EMBEDDING)
    if shape is None or len(shape) != 2:
        raise DataError(f"{folder}: holds no '{EMBEDDING}' with two dimensions, so it is not of Megatron's GPT model.")
    return shape[0]


def _blocks(saved: CheckpointTensors, names: set[str]) -> int:
    """How many blocks the tensors have: the first axis of those that hold all of them, or the numbers in names."""
    inside = [name for name in names if name.startswith(BLOCKS)]
    numbers = [int(number) for name in inside if (number := name.removeprefix(BLOCKS).partition(".")[0]).isdecimal()]
    stacked = [saved.shapes[name][0] for name in inside if saved.shapes[name]] if not numbers else []
    return max([*(number + 1 for number in numbers), *stacked], default=0)


def _config_of_arguments(arguments: Mapping[str, Any] | None, origin: Path, rows: int, padding: int) -> ModelConfig:
    if arguments is None:
        raise ConfigError(
            f"{origin}: holds no arguments of a training command, so the shape is not known; give a recipe whose model "
            "section has it with --recipe FILE."
        )
    settings = read_arguments(arguments, str(origin))
    settings |= {"vocab_size": rows, "vocab_padding": padding}
    return parse_config(
        {"name": "model", "data": {"sequence_length": 1}, "model": settings}, str(origin)
    ).model.resolved()


def _config_of_recipe(recipe: RunConfig, rows: int, padding: int) -> ModelConfig:
    model = recipe.model.model_copy(update={"vocab_size": rows, "vocab_padding": padding})
    config = model.resolved(None, recipe.data.sequence_length)
    write_arguments(config)  # refuses what Megatron has not
    return config


def _match(
    folder: Path, entries: list[Place], saved: CheckpointTensors, names: set[str], origin: str
) -> dict[Place, tuple[str, bool]]:
    """{what is due: (its name in the checkpoint, whether it is stacked there)}. DataError for what does not fit."""
    found: dict[Place, tuple[str, bool]] = {}
    layers = _blocks(saved, names)
    for entry in entries:
        place = next(((name, stacked) for name, stacked in entry.spellings() if name in names), None)
        if place is None:
            raise DataError(f"{folder}: holds no '{entry.key}', which the model of {origin} needs.")
        due = (layers, *entry.shape) if place[1] else entry.shape
        if tuple(saved.shapes[place[0]]) != due:
            raise DataError(
                f"{folder}: '{place[0]}' has shape {list(saved.shapes[place[0]])}, and in the model of {origin} it is "
                f"{list(due)}."
            )
        found[entry] = place
    for name in sorted(names - {name for name, _ in found.values()}):
        raise DataError(f"{folder}: holds '{name}', for which the model of {origin} has no place.")
    return found


def _read(saved: CheckpointTensors, found: Mapping[Place, tuple[str, bool]], layers: int) -> dict[str, Tensor]:
    """Every parameter in fp32, a block at a time."""
    tensors: dict[str, Tensor] = {}
    size = sum(4 * torch.Size(entry.shape).numel() for entry in found)
    with progress("import", size, "bytes") as bar:
        for _, block in itertools.groupby(found.items(), lambda pair: pair[0].layer):
            parts: dict[Place, tuple[str, Part]] = {}
            for entry, (name, stacked) in block:
                parts[entry] = name, _part(entry, saved.dtype(name), layers if stacked else None)
            saved.fill(dict(parts.values()))
            for entry, (_, part) in parts.items():
                for source, tensor in entry.split(part.local.view(entry.shape)).items():
                    tensors[source] = tensor.to(torch.float32).contiguous()
                bar.advance(4 * part.local.numel())
    return tensors


def _part(entry: Place, dtype: torch.dtype, layers: int | None) -> Part:
    """Room for a tensor: the whole of one, or its block of a stacked one."""
    zeros = [0] * len(entry.shape)
    if layers is None or entry.layer is None:
        return Part(torch.empty(entry.shape, dtype=dtype), torch.Size(zeros), torch.Size(entry.shape))
    local = torch.empty((1, *entry.shape), dtype=dtype)
    return Part(local, torch.Size([entry.layer, *zeros]), torch.Size([layers, *entry.shape]))
