"""Names in recipes, manifests and folders of others lead nowhere outside: nothing is written there, nothing read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from firstlight import pipeline
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.tokens import TokenDataset
from firstlight.training.load import load_trained

ESCAPES = ("../outside", "/tmp/outside", "..", "a/../../outside", "a\0b")


@pytest.fixture
def recipe(run: Path) -> Callable[..., Path]:
    """`recipe(key=value)`: the recipe of the working directory with other settings, as a file."""

    def write(**settings: object) -> Path:
        tree = yaml.safe_load(Path("text.yaml").read_text())
        Path("evil.yaml").write_text(yaml.safe_dump({**tree, **settings}))
        return Path("evil.yaml")

    return write


@pytest.mark.parametrize("name", ESCAPES)
def test_the_name_of_a_run(name: str, recipe: Callable[..., Path], tree) -> None:
    evil = recipe(name=name)
    before = tree(Path().resolve().parent)
    with pytest.raises(ConfigError, match="name: letters, digits"):
        pipeline.train(evil)
    assert tree(Path().resolve().parent) == before


@pytest.mark.parametrize("name", ESCAPES)
def test_the_name_of_a_source(name: str, recipe: Callable[..., Path], tree) -> None:
    evil = recipe(data={"sources": {name: {"text": ["manual.jsonl"]}}, "sequence_length": 64})
    before = tree(Path().resolve().parent)
    with pytest.raises(ConfigError, match="the name of a source has letters"):
        pipeline.train(evil)
    assert tree(Path().resolve().parent) == before


@pytest.mark.parametrize("name", ESCAPES)
def test_the_name_of_an_evaluation_set(name: str, recipe: Callable[..., Path], tree) -> None:
    steps = ["length", {"step": "decontaminate", "against": {name: ["code.jsonl"]}}]
    outside = Path().resolve().parent
    before = {path for path in tree(outside) if "here/" not in str(path)}
    pipeline.build_corpus(recipe(corpus={"steps": steps}), output="new")
    assert {path for path in tree(outside) if "here/" not in str(path)} == before


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "sub/train-00000"])
def test_shards_of_a_token_dataset(name: str, run: Path) -> None:
    folder = Path("tokens/code")
    description = json.loads((folder / "dataset.json").read_text())
    description["splits"]["train"]["shards"][0]["name"] = name
    (folder / "dataset.json").write_text(json.dumps(description))
    for suffix in (".bin", ".idx"):
        shutil.copy(folder / f"train-00000{suffix}", Path(f"tokens/outside{suffix}"))
    with pytest.raises(DataError, match="is no plain name"):
        TokenDataset.open(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "..", "sub/file"])
def test_files_of_a_checkpoint(name: str, run: Path, checkpoint: Path) -> None:
    (run / "checkpoints" / "outside").write_text("x")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_trained(run, step=4)


def test_shards_of_a_model(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.safetensors", tmp_path / "outside.safetensors")
    (model / "model.safetensors").unlink()
    for place in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index = {"weight_map": {"model.embed_tokens.weight": place}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(DataError, match=r"where a \.safetensors file beside it is due"):
            pipeline.import_model(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["chat_template.jinja", "special_tokens_map.json", "generation_config.json"])
def test_a_link_in_a_model_folder_does_not_publish_a_private_file(name: str, model: Path, tmp_path: Path) -> None:
    private = tmp_path / "id_rsa"
    private.write_text("{}")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(private)
    with pytest.raises(DataError, match=f"{name}: a link to .*id_rsa, outside"):
        pipeline.import_model(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_links_of_the_hubs_cache_are_followed(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--some--one" / "snapshots" / "abc"
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.move(file, blobs / str(number))
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    run = pipeline.import_model(snapshot, tmp_path / "run")
    assert not any(file.is_symlink() for file in run.path.rglob("*"))


def test_a_link_in_a_run_folder_is_not_exported(model: Path, tmp_path: Path) -> None:
    run = pipeline.import_model(model, tmp_path / "run")
    private = tmp_path / "id_rsa"
    private.write_text("private")
    (run.origin / "chat_template.jinja").symlink_to(private)
    with pytest.raises(DataError, match=r"chat_template\.jinja: not a file, or a link"):
        pipeline.export(run.path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_run_folder_that_is_named_by_a_path_stays_where_it_is(run: Path, tree) -> None:
    """`name` and `runs_directory` in the config.yaml of a run from elsewhere have no effect."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"name": "other", "runs_directory": str(Path().resolve().parent / "outside")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    pipeline.train(run, ["training.total_steps=6"])
    assert not (Path().resolve().parent / "outside").exists()
    assert (run / "checkpoints" / "step_000006").is_dir()
