"""The copy of a run in a second place is whole or no checkpoint, and goes on when it is copied back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from firstlight.config import CheckpointConfig
from firstlight.pipeline.run_training import train
from firstlight.pipeline.verifying import verify
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.training.checkpoint import CheckpointWriter, checkpoint_steps, load_checkpoint, verify_checkpoint
from firstlight.training.checkpoint import second_place as module
from firstlight.training.checkpoint.second_place import SecondPlace
from firstlight.training.load import load_trained


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with two small files and one that stays."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)
    run = tmp_path / "runs" / "one"
    for name in ("config.yaml", "tokenizer/tokenizer.json", "huggingface/model.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    return run


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs.clear()
    yield store
    store.store.clear()
    store.pseudo_dirs.clear()


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"model.x": torch.full((3, 5), float(step))}


def save(run: Path, place: str | Path, *steps: int, state: dict[str, Any] | None = None, **settings: Any) -> None:
    """Save so, waiting for each copy."""
    with CheckpointWriter(run / "checkpoints", CheckpointConfig(copy_to=str(place), **settings)) as writer:
        for step in steps:
            writer.save(step, tensors(step), state or {}, wait=True)
            assert writer._second is not None
            writer._second.close()


def test_what_is_copied_is_a_run(run: Path, tmp_path: Path) -> None:
    save(run, tmp_path / "second", 1, 2)
    copied = tmp_path / "second" / "one"
    assert sorted(entry.name for entry in copied.iterdir()) == ["checkpoints", "config.yaml", "tokenizer"]
    assert (copied / "tokenizer" / "tokenizer.json").read_text() == "tokenizer/tokenizer.json"
    assert checkpoint_steps(copied / "checkpoints") == [1, 2]
    for step in (1, 2):
        verify_checkpoint(copied / "checkpoints" / f"step_{step:06d}")
        loaded = tensors(0)
        load_checkpoint(copied / "checkpoints", loaded, step=step)
        assert torch.equal(loaded["model.x"], tensors(step)["model.x"])


def test_an_object_store_holds_the_same_bytes(run: Path, memory: Any) -> None:
    save(run, "memory://bucket/runs", 1)
    root = "/bucket/runs/one/checkpoints/step_000001"
    names = {name.removeprefix(f"{root}/") for name in memory.find(root)}
    path = run / "checkpoints" / "step_000001"
    assert names == {file.name for file in path.iterdir()}
    assert all(memory.cat_file(f"{root}/{name}") == (path / name).read_bytes() for name in names)


@pytest.mark.parametrize("good", [True, False])
def test_the_second_place_keeps_what_the_first_keeps(run: Path, memory: Any, good: bool) -> None:
    settings: dict[str, Any] = {"keep_last": 2, "keep_every_steps": 3}
    save(run, "memory://b", 1, **settings)
    save(run, "memory://b", *range(2, 9), state={"good": good}, **settings)
    found = {Path(name).name for name in memory.ls("/b/one/checkpoints", detail=False)}
    assert found == {entry.name for entry in (run / "checkpoints").iterdir()}
    assert ("step_000001" in found) is not good


class Store:
    """A store that breaks off before it takes its `limit`-th file; then it is well again."""

    def __init__(self, store: Any, limit: int) -> None:
        self._store, self.left, self.broken = store, limit, True

    def put_file(self, source: str, target: str) -> None:
        if self.broken and self.left == 0:
            raise TimeoutError("gone")
        self.left -= 1
        self._store.put_file(source, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("limit", range(7))
def test_a_copy_that_breaks_off_is_no_checkpoint_and_the_next_one_is_copied(
    run: Path, memory: Any, limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = run / "checkpoints"
    with CheckpointWriter(checkpoints, CheckpointConfig(copy_to="memory://b")) as writer:
        second = writer._second
        assert second is not None
        store = second._store = Store(memory, limit)
        writer.save(1, tensors(1), {}, wait=True)
        second.close()
        whole = limit >= 6
        assert second._steps().get(1, False) is whole
        assert ("memory://b/one: step_000001 was not copied there (gone)" in capsys.readouterr().err) is not whole
        store.broken = False
        writer.save(2, tensors(2), {}, wait=True)
        second.close()
        assert second._steps() == ({1: True, 2: True} if whole else {2: True})
    assert checkpoint_steps(checkpoints) == [1, 2]


def test_a_checkpoint_stays_until_it_is_copied(run: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, copied = threading.Event(), []
    put = SecondPlace._put

    def slow(self: SecondPlace, file: Path, name: str) -> None:
        assert go.wait(60)
        put(self, file, name)
        copied.append(name)

    monkeypatch.setattr(SecondPlace, "_put", slow)
    with CheckpointWriter(run / "checkpoints", CheckpointConfig(keep_last=1, copy_to="memory://b")) as writer:
        for step in (1, 2, 3, 4):
            writer.save(step, tensors(step), {}, wait=True)
        assert checkpoint_steps(run / "checkpoints") == [1, 4]
        go.set()
    assert [name for name in copied if name.endswith("manifest.json")] == [
        "checkpoints/step_000001/manifest.json",
        "checkpoints/step_000004/manifest.json",
    ]


def test_another_run_of_the_same_name_is_not_touched(run: Path, memory: Any) -> None:
    save(run, "memory://b", 1)
    before = dict(memory.store)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="memory://b/one: holds a run of this name up to step 1, and"):
        save(run, "memory://b", 2)
    assert memory.store == before


def test_a_place_that_is_none_is_said_before_the_first_step(run: Path, tmp_path: Path) -> None:
    for place, sentence in (("ftp2://x", "no known kind of address"), ("https://x/y", "no known kind of address")):
        with pytest.raises(DataError, match=sentence):
            save(run, place, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/x/one: cannot be reached"):
        save(run, tmp_path / "file" / "x", 1)
    assert checkpoint_steps(run / "checkpoints") == []


def test_a_place_that_a_begun_run_does_not_reach_is_a_warning(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, tmp_path / "second", 1)
    (tmp_path / "file").write_text("")
    save(run, tmp_path / "file" / "x", 2)
    assert checkpoint_steps(run / "checkpoints") == [1, 2]
    said = capsys.readouterr().err
    assert "file/x/one: cannot be reached" in said and "step_000002 was not copied there" in said


def test_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="leave keys out"):
        CheckpointConfig(copy_to="s3://key:secret@bucket/runs")
    assert CheckpointConfig(copy_to="abfs://container@account.dfs.core.windows.net/x").copy_to


def test_a_run_that_is_copied_back_ends_like_one_that_was_never_lost(tiny_recipe: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(tiny_recipe.read_text())
    settings["checkpoint"]["copy_to"] = str(tmp_path / "second")
    settings["schedule"]["name"] = "constant"
    tiny_recipe.write_text(yaml.safe_dump(settings))
    whole = train(tiny_recipe, ["name=whole", "training.total_steps=10"])
    lost = train(tiny_recipe, ["name=lost", "training.total_steps=5"])
    shutil.rmtree(lost.path)
    with pytest.raises(CheckpointError, match="holds a run of this name up to step 5"):
        train(tiny_recipe, ["name=lost", "training.total_steps=10"])
    shutil.rmtree(lost.path, ignore_errors=True)
    shutil.copytree(tmp_path / "second" / "lost", lost.path)
    assert not any(result.faults for result in verify([lost.path]))
    train(lost.path, ["training.total_steps=10"])
    one, other = load_trained(whole.path).model, load_trained(lost.path).model
    for (name, expected), (_, found) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(expected, found), name


def test_the_address_is_checked_with_the_recipe(tiny_recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.copy_to"):
        train(tiny_recipe, ["checkpoint.copy_to=s3://key:secret@bucket"])
