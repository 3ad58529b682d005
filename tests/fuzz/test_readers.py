"""Whatever a file holds, its reader reads it or says in one sentence what is wrong: nothing else, and not for long."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstlight.interop.config_json import read_config
from firstlight.interop.saved_weights import SavedWeights
from firstlight.recipe import load_config, recipe_names, recipe_text
from firstlight.support.errors import CheckpointError, ConfigError, DataError, FirstlightError
from firstlight.tokens import TokenDataset, Tokenizer
from firstlight.tokens.indexed import IndexedReader, IndexedWriter
from firstlight.training.checkpoint import CheckpointTensors, CheckpointWriter, load_checkpoint, verify_checkpoint
from firstlight.training.run_folder import RunFolder

from .conftest import JUNK, damaged, often, twisted


@pytest.fixture(scope="module")
def here(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after training, to be damaged."""
    folder = tmp_path_factory.mktemp("fuzz") / "folder"
    shutil.copytree(trained_folder, folder)
    return folder


def assert_one_sentence(problem: BaseException) -> None:
    text = str(problem)
    assert text and "Traceback" not in text and len(text) < 20_000


@often
@given(data=st.data())
def test_an_index(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    prefix = tmp_path_factory.getbasetemp() / "shard"
    with IndexedWriter(prefix, "uint16") as writer:
        for document in ([[1, 2, 3]], [], [[4], [5, 6]]):
            for sequence in document:
                writer.add_sequence(sequence)
            writer.end_document()
    for suffix in data.draw(st.sampled_from([(".idx",), (".bin",), (".idx", ".bin")])):
        file = Path(f"{prefix}{suffix}")
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    try:
        reader = IndexedReader(prefix)
        for document in range(min(reader.num_documents, 100)):
            reader.document(document)
        reader.verify()
    except DataError as problem:
        assert_one_sentence(problem)


@often
@given(data=st.data())
def test_the_description_of_a_dataset(here: Path, data: st.DataObject) -> None:
    file = here / "tokens" / "code" / "dataset.json"
    before = file.read_bytes()
    tree = json.loads(before)
    file.write_bytes(data.draw(damaged(before) | twisted(tree)))
    try:
        dataset = TokenDataset.open(file.parent)
        dataset.splits["train"].read(0, 3)
        dataset.verify()
    except DataError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)


@often
@given(data=st.data())
def test_a_recipe(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "recipe.yaml"
    text = recipe_text(data.draw(st.sampled_from(recipe_names()))).encode()
    tree = load_config("quickstart").model_dump(mode="json")
    file.write_bytes(data.draw(damaged(text) | twisted(tree)))
    keys = st.sampled_from(["name", "seed", "model", "model.hidden_size", "data.sources", "corpus.steps.0", "x", ""])
    values = st.sampled_from([*map(str, JUNK), "[" * 3000, "&a [*a]", "2001-99-99", "!!int x"]) | st.text(max_size=20)
    overrides = data.draw(st.lists(st.builds("{}={}".format, keys, values) | st.text(max_size=9), max_size=2))
    try:
        load_config(file, overrides)
    except ConfigError as problem:
        assert_one_sentence(problem)


@often
@given(data=st.data())
def test_a_manifest(here: Path, data: st.DataObject) -> None:
    file = here / "runs" / "tiny" / "checkpoints" / "step_000004" / "manifest.json"
    before = file.read_bytes()
    tree = json.loads(before)
    file.write_bytes(data.draw(damaged(before) | twisted(tree)))
    try:
        verify_checkpoint(file.parent)
    except FirstlightError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)


SAVED = {"model.weight": torch.arange(12.0).reshape(3, 4), "optimizer.weight.step": torch.tensor(3.0)}
STATE = {"samples_consumed": 8, "tokens_consumed": 512, "validation": {"a": {"loss": 1.0}}, "loss_scale": None}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from firstlight.config import RunConfig

    folder = tmp_path_factory.mktemp("checkpoints")
    with CheckpointWriter(folder, RunConfig(name="x").checkpoint) as writer:
        writer.save(4, SAVED, STATE, wait=True)
    return folder


@pytest.mark.parametrize("name", [b"properties", b"offsets", b"sizes", b"chunks", b"storage_data"])
def test_metadata_that_lacks_a_field(checkpoints: Path, name: bytes) -> None:
    file = checkpoints / "step_000004" / ".metadata"
    before = file.read_bytes()
    file.write_bytes(before.replace(name, b"q" + name[1:]))
    try:
        with pytest.raises(CheckpointError) as caught:
            CheckpointTensors(file.parent)
        assert_one_sentence(caught.value)
    finally:
        file.write_bytes(before)


@often
@given(data=st.data())
def test_the_metadata_of_a_checkpoint(checkpoints: Path, data: st.DataObject) -> None:
    """Read without its manifest, whose hash would refuse it at once."""
    file = checkpoints / "step_000004" / ".metadata"
    before = file.read_bytes()
    file.write_bytes(data.draw(damaged(before)))
    try:
        tensors = CheckpointTensors(file.parent)
        tensors.check({name: value.shape for name, value in SAVED.items()})
        for name in SAVED:
            tensors.read(name)
    except FirstlightError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)


@often
@given(data=st.data())
def test_the_tensors_of_a_checkpoint(checkpoints: Path, data: st.DataObject) -> None:
    file = next((checkpoints / "step_000004").glob("*.distcp"))
    before = file.read_bytes()
    file.write_bytes(data.draw(damaged(before)))
    try:
        tensors = CheckpointTensors(file.parent)
        for name in SAVED:
            tensors.read(name)
    except FirstlightError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)


@often
@given(data=st.data())
def test_the_state_of_a_checkpoint(checkpoints: Path, data: st.DataObject) -> None:
    """Forged with its hash, so that it is read."""
    from firstlight.training.checkpoint.folder import describe_file

    folder = checkpoints / "step_000004"
    state, manifest = folder / "state.json", folder / "manifest.json"
    before = {file: file.read_bytes() for file in (state, manifest)}
    state.write_bytes(data.draw(damaged(before[state]) | twisted(json.loads(before[state]))))
    told = json.loads(before[manifest])
    told["files"]["state.json"] = describe_file(state)
    manifest.write_text(json.dumps(told))
    try:
        found = load_checkpoint(checkpoints, {name: torch.zeros_like(value) for name, value in SAVED.items()}, step=4)
        assert isinstance(found["step"], int)
    except FirstlightError as problem:
        assert_one_sentence(problem)
    finally:
        for file, content in before.items():
            file.write_bytes(content)


@often
@given(data=st.data())
def test_a_run_folder(here: Path, data: st.DataObject) -> None:
    run = RunFolder(here / "runs" / "tiny")
    before = {file: file.read_bytes() for file in (run.config_file, run.provenance_file, run.metrics)}
    file = data.draw(st.sampled_from(list(before)))
    file.write_bytes(data.draw(damaged(before[file])))
    try:
        for look in (lambda: run.config, lambda: run.provenance, lambda: run.imported, lambda: run.trim_metrics(3)):
            look()
    except FirstlightError as problem:
        assert_one_sentence(problem)
    finally:
        for file, content in before.items():
            file.write_bytes(content)


@pytest.fixture(scope="module")
def model(here: Path) -> Path:
    from firstlight import pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        return pipeline.export("runs/tiny", here / "model")


@often
@given(data=st.data())
def test_safetensors(model: Path, data: st.DataObject) -> None:
    file = model / "model.safetensors"
    before = file.read_bytes()
    size = 8 + int.from_bytes(before[:8], "little")
    header = json.loads(before[8:size])
    if data.draw(st.booleans()):
        changed = data.draw(twisted(header) | damaged(before[8:size]))
        content = len(changed).to_bytes(8, "little") + changed + before[size:]
    else:
        content = data.draw(damaged(before[:size])) + before[size:]
    file.write_bytes(content)
    try:
        saved = SavedWeights(model)
        for name in saved.names:
            saved.shape(name), saved.dtype(name), saved.read(name)
    except DataError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)


@often
@given(data=st.data())
def test_the_configuration_of_a_model(model: Path, data: st.DataObject) -> None:
    content: Any = json.loads(data.draw(twisted(json.loads((model / "config.json").read_bytes()))))
    try:
        read_config(content, "config.json")
    except ConfigError as problem:
        assert_one_sentence(problem)


@often
@given(data=st.data())
def test_a_tokenizer(here: Path, data: st.DataObject) -> None:
    folder = here / "tokenizer"
    file = folder / data.draw(st.sampled_from(["tokenizer.json", "tokenizer.json", "tokenizer_config.json"]))
    before = file.read_bytes()
    file.write_bytes(data.draw(damaged(before) | twisted(json.loads(before))))
    try:
        tokenizer = Tokenizer.load(folder)
        tokenizer.decode(tokenizer.encode("Some text, 12 é 好."))
    except DataError as problem:
        assert_one_sentence(problem)
    finally:
        file.write_bytes(before)
