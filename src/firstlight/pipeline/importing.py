"""The verb `import`: a model that another project trained becomes a run that can be evaluated, trained and exported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firstlight.config import CheckpointConfig, RunConfig
from firstlight.interop import megatron_checkpoint
from firstlight.interop.import_huggingface import (
    HUB_FILES,
    MODEL_FILES,
    TOKENIZER_FILES,
    ImportedModel,
    model_folder,
    read_huggingface,
)
from firstlight.planning.flops import parameter_count
from firstlight.recipe import load_config, parse_config
from firstlight.support.console import human_count, note
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.support.files import atomic_folder, check_writable, sha256_file
from firstlight.support.hub import place_or_hub
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointWriter
from firstlight.training.run_folder import RunFolder

LONGEST_SEQUENCE = 1024
"""`data.sequence_length` of an imported run, where the model's positions allow it."""


@dataclass(frozen=True)
class _Source:
    """What an import makes a run of."""

    model: ImportedModel | megatron_checkpoint.MegatronModel
    words: Tokenizer
    name: str
    """Of the class or format."""
    model_type: str
    drawn: list[str]
    """Parameters that the files do not have."""
    origin: list[Path]
    """Files that an export gives back as they are."""


def import_model(
    source: str | Path, run_folder: str | Path, *, tokenizer: str | None = None, recipe: str | Path | None = None
) -> RunFolder:
    """Make a run of a Hugging Face model in safetensors format, or of a checkpoint of Megatron-LM's in its format
    torch_dist; returns the run, which is whole or absent.

    source: its folder, or its name on the hub. tokenizer: `tokenizer.json`, a folder with one, or a hub name; unset:
    the model's own (a Megatron checkpoint has one only where Firstlight wrote it). recipe: whose model section says the
    shape of a Megatron checkpoint in place of its own arguments. The model is whole in memory in fp32 meanwhile. Raises
    ConfigError, naming the field, for a model that Firstlight does not compute exactly; DataError or CheckpointError
    for weights or a tokenizer that cannot be read, and for a link that leads out of its folder; CheckpointError for a
    folder that is not empty.
    """
    path = Path(run_folder)
    _check_place(path)
    if megatron_checkpoint.is_megatron_checkpoint(Path(source)):
        given = _read_megatron(Path(source), tokenizer, recipe)
    elif recipe is not None:
        raise ConfigError(f"--recipe is for checkpoints of Megatron-LM; {source} has the shape in its config.json.")
    else:
        given = _read_huggingface(source, tokenizer)
    config = _run_config(path, given)
    with atomic_folder(path) as temporary:
        run = RunFolder(temporary)
        if given.origin:
            run.origin.mkdir()
        for file in given.origin:
            shutil.copyfile(file, run.origin / file.name)
        run.create(config, given.words, {}, imported=_provenance(source, given))
        tensors = {f"model.{name}": tensor for name, tensor in given.model.tensors.items()}
        state = {"samples_consumed": 0, "tokens_consumed": 0, "validation": {}, "loss_scale": None}
        with CheckpointWriter(run.checkpoints, CheckpointConfig()) as writer:
            writer.save(0, tensors, {**state, "weights_only": True}, wait=True)
    model = given.model.config
    assert model.vocab_size is not None
    rows, words = model.vocab_size, given.words.vocab_size
    unused = f", {rows - words} of them without a token" if rows > words else ""
    note(
        f"{given.name}: {human_count(parameter_count(model))} parameters ({given.model.dtype}), as "
        f"architecture {model.architecture}, objective {model.objective}; {rows} vocabulary rows{unused}"
    )
    return RunFolder(path)


def open_huggingface(source: str | Path) -> tuple[ImportedModel, Tokenizer, RunConfig]:
    """A Hugging Face model, its tokenizer and the configuration that its run would have; nothing is written."""
    given = _read_huggingface(source, None)
    assert isinstance(given.model, ImportedModel)
    return given.model, given.words, _run_config(Path(source), given)


def _read_huggingface(source: str | Path, tokenizer: str | None) -> _Source:
    place = model_folder(source)
    tokenizer_place = place if tokenizer is None else place_or_hub(tokenizer, HUB_FILES)
    words = Tokenizer.load(tokenizer_place)
    model = read_huggingface(place)
    rows = model.config.vocab_size
    assert rows is not None
    if words.vocab_size > rows:
        raise ConfigError(
            f"{place}: the tokenizer has {words.vocab_size} tokens and the model's vocabulary {rows}; "
            "give the one that belongs to it with --tokenizer."
        )
    origin = list(_origin_files(place, tokenizer_place))
    return _Source(model, words, model.theirs.name, model.theirs.model_type, model.drawn, origin)


def _read_megatron(source: Path, tokenizer: str | None, recipe: str | Path | None) -> _Source:
    megatron_checkpoint.checkpoint_folder(source)  # what is wrong with it is told before a tokenizer is asked for
    place = source / megatron_checkpoint.TOKENIZER if tokenizer is None else place_or_hub(tokenizer, HUB_FILES)
    if tokenizer is None and not place.is_dir():
        raise ConfigError(
            f"{source}: Megatron keeps no tokenizer in a checkpoint; give the one that belongs to it with --tokenizer "
            "(tokenizer.json, a folder with one, or a hub name)."
        )
    words = Tokenizer.load(place)
    model = megatron_checkpoint.read_megatron(source, words.vocab_size, None if recipe is None else load_config(recipe))
    at = "" if model.iteration is None else f" of iteration {model.iteration}"
    return _Source(model, words, f"Megatron-LM checkpoint{at}", "megatron", [], [])


def _check_place(path: Path) -> None:
    check_writable(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: a file, where the run folder is due; choose another.")
    if path.is_dir() and any(path.iterdir()):
        raise CheckpointError(f"{path}: not empty; choose another run folder.")


def _run_config(path: Path, given: _Source) -> RunConfig:
    """The configuration of the run: the model and nothing decided yet about data and training."""
    path = path.resolve() if path.name in ("", "..") else path
    model = given.model.config
    positions = model.max_position_embeddings
    assert positions is not None
    tree = {
        "name": path.name,
        "description": f"imported {given.name}",
        "runs_directory": str(path.parent),
        "data": {"sequence_length": min(positions, LONGEST_SEQUENCE)},
        "model": model.model_dump(),
    }
    return parse_config(tree, str(path))


def _origin_files(place: Path, tokenizer_place: Path) -> Iterator[Path]:
    """What export gives back as it was: the model's configuration and the tokenizer's files."""
    words = tokenizer_place if tokenizer_place.is_dir() else tokenizer_place.parent
    for folder, names in ((place, MODEL_FILES), (words, TOKENIZER_FILES)):
        for file in (folder / name for name in names if (folder / name).is_file()):
            _refuse_link_out(file, folder.resolve())
            yield file


def _refuse_link_out(file: Path, folder: Path) -> None:
    """DataError for a link out of the folder (or the hub's cache): the target would be in every export of the run."""
    homes = (folder, folder.parent.parent / "blobs")
    if not any(file.resolve().is_relative_to(home) for home in homes):
        raise DataError(f"{file}: a link to {file.resolve()}, outside of the folder; put the file itself there.")


def _provenance(source: str | Path, given: _Source) -> dict[str, Any]:
    from_hub = not Path(source).exists()
    return {
        "source": str(source) if from_hub else str(Path(source).resolve()),
        "hub": from_hub,
        "model_type": given.model_type,
        "class": given.name,
        "dtype": given.model.dtype,
        "drawn": given.drawn,
        "files": {file.name: sha256_file(file) for file in given.model.files},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
