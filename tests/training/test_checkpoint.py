"""Checkpoints are whole or absent, verified before use, and never run code."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from firstlight.config import CheckpointConfig, RunConfig
from firstlight.planning.flops import parameter_count
from firstlight.support.errors import CheckpointError
from firstlight.training.checkpoint import (
    CheckpointTensors,
    CheckpointWriter,
    checkpoint_folder,
    checkpoint_steps,
    last_good_step,
    load_checkpoint,
    set_aside_after,
    verify_checkpoint,
    warn_of_little_room,
)

KEEP_ALL = CheckpointConfig(keep_last=100)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: dict[str, Any]) -> Path:
    with CheckpointWriter(folder, KEEP_ALL) as writer:
        writer.save(step, tensors, state)
    return checkpoint_folder(folder, step)


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model.weight": torch.randn(5, 7, generator=generator),
        "model.half": torch.randn(3, generator=generator).bfloat16(),
        "optimizer.weight.step": torch.tensor(float(seed)),
        "rng.cpu": torch.get_rng_state(),
    }


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in tensors().items()}


@pytest.mark.parametrize("settings", [{}, {"asynchronous": False}])
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, settings, wait):
    saved = tensors(3)
    with CheckpointWriter(tmp_path, CheckpointConfig(**settings)) as writer:
        writer.save(3, saved, {"samples_consumed": 12}, wait=wait)
    loaded = zeros()
    state = load_checkpoint(tmp_path, loaded)
    assert state == {"step": 3, "samples_consumed": 12}
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_a_part_can_be_loaded_alone_and_a_named_step_too(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {})
    part = {"model.weight": torch.zeros(5, 7)}
    assert load_checkpoint(tmp_path, part, step=1)["step"] == 1
    assert torch.equal(part["model.weight"], tensors(1)["model.weight"])
    with pytest.raises(CheckpointError, match="no complete checkpoint of step 9; there are: 1, 2"):
        load_checkpoint(tmp_path, part, step=9)


def test_nothing_to_load_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_checkpoint(tmp_path, zeros())


def files_of_a_checkpoint(tmp_path) -> list[str]:
    return sorted(file.name for file in save_checkpoint(tmp_path, 1, tensors(), {}).iterdir())


@pytest.mark.parametrize("damage", ["cut", "flip", "delete"])
def test_any_damaged_file_is_found_and_the_checkpoint_before_is_used(tmp_path, damage, capsys):
    names = files_of_a_checkpoint(tmp_path / "names")
    assert names == [".metadata", "__0_0.distcp", "manifest.json", "state.json"]
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        save_checkpoint(folder, 1, tensors(1), {})
        file = save_checkpoint(folder, 2, tensors(2), {}) / name
        content = bytearray(file.read_bytes())
        if damage == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif damage == "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        else:
            file.unlink()
        loaded = zeros()
        assert load_checkpoint(folder, loaded)["step"] == 1
        assert torch.equal(loaded["model.weight"], tensors(1)["model.weight"])
        if not (name == "manifest.json" and damage == "delete"):  # without a manifest it never was one
            assert (folder / "damaged_step_000002").is_dir()
            assert "step_000002" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, tensors(), {})
    with pytest.raises(CheckpointError, match=r"'model\.weight' has shape \[5, 7\], the model expects \[4, 4\]"):
        load_checkpoint(tmp_path, {"model.weight": torch.zeros(4, 4)})
    with pytest.raises(CheckpointError, match=r"holds no 'model\.other'"):
        load_checkpoint(tmp_path, {"model.other": torch.zeros(1)})


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_in_the_metadata_is_not_run(tmp_path):
    path = save_checkpoint(tmp_path, 1, tensors(), {})
    trace = tmp_path / "trace"
    (path / ".metadata").write_bytes(pickle.dumps(Malicious(trace)))
    manifest = path / "manifest.json"
    description = json.loads(manifest.read_text())
    content = (path / ".metadata").read_bytes()
    description["files"][".metadata"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="which checkpoint metadata never needs"):
        load_checkpoint(tmp_path, zeros())
    assert not trace.exists()


class Held:
    """Lets no background write begin before `go` is set, and knows how many were under way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.active = self.most = 0
        self._save = dcp.save
        monkeypatch.setattr("firstlight.training.checkpoint.writer.dcp.save", self)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        assert self.go.wait(60)
        self.active += 1
        self.most = max(self.most, self.active)
        self._save(*arguments, **options)
        self.active -= 1


def test_training_goes_on_while_bytes_are_written_and_does_not_change_them(tmp_path, monkeypatch):
    held = Held(monkeypatch)
    written, state = tensors(1), {"validation": {"loss": 1.0}}
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        writer.save(1, written, state)
        for value in written.values():
            value.fill_(7)
        state["validation"]["loss"] = 7.0
        assert checkpoint_steps(tmp_path) == []
        held.go.set()
        writer.save(2, written, state)
        assert checkpoint_steps(tmp_path)[0] == 1
    loaded = zeros()
    assert load_checkpoint(tmp_path, loaded, step=1)["validation"] == {"loss": 1.0}
    assert all(torch.equal(loaded[name], value) for name, value in tensors(1).items())
    assert load_checkpoint(tmp_path, loaded, step=2)["validation"] == {"loss": 7.0}
    assert all(torch.equal(loaded[name], value) for name, value in written.items())


def test_a_synchronous_save_is_in_place_when_it_returns(tmp_path):
    with CheckpointWriter(tmp_path, CheckpointConfig(asynchronous=False)) as writer:
        writer.save(1, tensors(1), {})
        assert checkpoint_steps(tmp_path) == [1]
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        writer.save(2, tensors(1), {}, wait=True)
        assert checkpoint_steps(tmp_path) == [1, 2]


def test_one_save_is_under_way_at_a_time(tmp_path, monkeypatch):
    held = Held(monkeypatch)
    held.go.set()
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        for step in range(1, 6):
            writer.save(step, tensors(step), {})
    assert held.most == 1
    for step in range(1, 6):
        loaded = zeros()
        load_checkpoint(tmp_path, loaded, step=step)
        assert all(torch.equal(loaded[name], value) for name, value in tensors(step).items() if name != "rng.cpu")


def test_shapes_may_change_between_saves(tmp_path):
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        writer.save(1, {"x": torch.ones(3)}, {})
        writer.save(2, {"x": torch.ones(5, dtype=torch.bfloat16)}, {})
    assert torch.equal(CheckpointTensors(checkpoint_folder(tmp_path, 1)).read("x"), torch.ones(3))
    assert torch.equal(CheckpointTensors(checkpoint_folder(tmp_path, 2)).read("x"), torch.ones(5, dtype=torch.bfloat16))


def refuse(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch) -> None:
    """The disk takes no manifest."""
    monkeypatch.setattr("firstlight.training.checkpoint.writer.write_json", refuse)


Told = list[tuple[int, str]]


def recording(told: Told, folder: Path, **settings: Any) -> CheckpointWriter:
    return CheckpointWriter(
        folder, CheckpointConfig(**{"keep_last": 100, **settings}), lambda step, reason: told.append((step, reason))
    )


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_that_fails_while_training_goes_on_is_told_and_leaves_nothing(tmp_path, full_disk, asynchronous, capsys):
    told: Told = []
    with recording(told, tmp_path, asynchronous=asynchronous) as writer:
        writer.save(2, tensors(), {})
        writer.wait()
        assert told == [(2, f"{checkpoint_folder(tmp_path, 2)}: No space left on device; {ROOM}.")]
        assert not any(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert "step 2 could not be saved" in said and ROOM in said
    assert "there is no checkpoint yet" in said and "tried again every 100 steps" in said


ROOM = "make room, or choose a place on another disk"


def test_a_save_that_is_waited_for_raises_and_leaves_nothing(tmp_path, full_disk):
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        with pytest.raises(OSError, match="No space left") as failure:
            writer.save(2, tensors(), {}, wait=True)
        assert failure.value.filename == str(checkpoint_folder(tmp_path, 2))
    assert not any(tmp_path.iterdir())


def test_a_save_is_due_each_interval_and_ten_times_as_often_while_saving_fails(tmp_path, monkeypatch, capsys):
    told: Told = []
    attempts = []
    with recording(told, tmp_path, interval_steps=50) as writer:
        for step in range(1, 201):
            broken = 100 <= step < 122
            with monkeypatch.context() as patch:
                if broken:
                    patch.setattr("firstlight.training.checkpoint.writer.write_json", refuse)
                if writer.due(step):
                    attempts.append(step)
                    writer.save(step, tensors(step), {})
                if writer._under_way is not None:
                    writer._under_way.result()
    assert attempts == [50, 100, 105, 110, 115, 120, 125, 150, 200]
    assert [step for step, _ in told] == [100, 105, 110, 115, 120]
    assert checkpoint_steps(tmp_path) == [50, 125, 150, 200]
    said = capsys.readouterr().err
    assert said.count("the checkpoint of step 50 is safe") == 1
    assert said.count("could not be saved either") == 4
    assert said.count("step 125 is saved again") == 1


def test_a_save_that_is_not_done_yet_is_not_waited_for(tmp_path, monkeypatch):
    held = Held(monkeypatch)
    with CheckpointWriter(tmp_path, CheckpointConfig(interval_steps=10)) as writer:
        writer.save(10, tensors(), {})
        assert not any(writer.due(step) for step in range(11, 20))
        held.go.set()


def test_what_cannot_be_recorded_is_recorded_later(tmp_path, monkeypatch):
    told: Told = []
    full = True

    def record(step: int, reason: str) -> None:
        if full:
            raise OSError(28, "No space left on device")
        told.append((step, reason))

    with CheckpointWriter(tmp_path, KEEP_ALL, record) as writer:
        with monkeypatch.context() as patch:
            patch.setattr("firstlight.training.checkpoint.writer.write_json", refuse)
            for step in (1, 2):
                writer.save(step, tensors(), {})
                writer.wait()
        assert told == []
        full = False
        writer.save(3, tensors(), {})
    assert [step for step, _ in told] == [1, 2]


def test_another_error_in_the_background_is_raised_by_the_next_call(tmp_path, monkeypatch):
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("firstlight.training.checkpoint.writer.write_json", fail)
    with CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        writer.save(1, tensors(), {})
        with pytest.raises(ZeroDivisionError):
            writer.wait()


def test_an_error_in_training_is_not_hidden_by_one_in_saving(tmp_path, full_disk, capsys):
    with pytest.raises(ArithmeticError), CheckpointWriter(tmp_path, KEEP_ALL) as writer:
        writer.save(1, tensors(), {})
        raise ArithmeticError
    assert "No space left" in capsys.readouterr().err


def test_too_little_room_is_found_before_anything_is_written(tmp_path, little_room):
    with (
        CheckpointWriter(tmp_path, KEEP_ALL) as writer,
        pytest.raises(CheckpointError, match=r"step_0+1: a checkpoint needs 5\.\d+ kB, the disk has 100 B free"),
    ):
        writer.save(1, tensors(), {}, wait=True)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def little_room(monkeypatch) -> None:
    """The disk has 100 bytes free."""

    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)


def test_retention_keeps_the_newest_and_the_multiples(tmp_path):
    with CheckpointWriter(tmp_path, CheckpointConfig(keep_last=2, keep_every_steps=3)) as writer:
        for step in range(1, 9):
            writer.save(step, {"x": torch.zeros(1)}, {})
    assert checkpoint_steps(tmp_path) == [3, 6, 7, 8]


@pytest.mark.parametrize(
    ("good", "kept", "last_good"),
    [
        ({}, [7, 8], 8),
        ({4}, [4, 7, 8], 4),
        ({2, 4, 7}, [7, 8], 7),
        ({1}, [1, 7, 8], 1),
    ],
)
def test_the_newest_good_one_is_kept_besides(tmp_path, good, kept, last_good):
    with CheckpointWriter(tmp_path, CheckpointConfig(keep_last=2)) as writer:
        for step in range(1, 9):
            state = {"good": step in good} if good else {}
            writer.save(step, {"x": torch.full((1,), float(step))}, state)
    assert checkpoint_steps(tmp_path) == kept
    assert last_good_step(tmp_path) == last_good
    loaded = {"x": torch.zeros(1)}
    assert load_checkpoint(tmp_path, loaded, step=last_good_step(tmp_path))["step"] == last_good
    assert loaded["x"] == last_good


def test_nothing_good_is_none(tmp_path):
    assert last_good_step(tmp_path / "none") is None
    save_checkpoint(tmp_path, 1, tensors(), {"good": False})
    save_checkpoint(tmp_path, 2, tensors(), {"weights_only": True})
    (save_checkpoint(tmp_path, 3, tensors(), {}) / "state.json").write_text("{")
    assert last_good_step(tmp_path) is None


def test_what_came_after_the_step_that_is_gone_back_to_is_set_aside(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, tensors(step), {})
    set_aside_after(tmp_path, 1)
    assert checkpoint_steps(tmp_path) == [1]
    save_checkpoint(tmp_path, 2, tensors(9), {})
    set_aside_after(tmp_path, 1)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["abandoned_step_000002", "abandoned_step_000002_2", "abandoned_step_000003", "step_000001"]


def test_the_start_of_a_run_says_that_its_checkpoints_will_not_fit(tmp_path, monkeypatch, capsys):
    config = RunConfig(name="x", model={"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4})
    config = config.model_copy(update={"model": config.model.resolved(1000, 32)})
    size = 12 * parameter_count(config.model)

    class Usage:
        free = 0

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    for free, said in ((0.5 * size, "or none can be saved"), (2 * size, "or lower keep_last"), (4 * size, "")):
        Usage.free = int(free)
        warn_of_little_room(tmp_path / "not" / "there", config)
        shown = capsys.readouterr().err
        assert (said in shown and "the disk has" in shown) if said else shown == ""


def test_what_killed_saves_left_behind_is_removed_at_the_start(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {})
    (tmp_path / ".step_000009.tmp").mkdir()
    (tmp_path / ".step_000001.old").mkdir()
    checkpoint_folder(tmp_path, 2).rename(
        tmp_path / ".step_000002.old"
    )  # killed just before the new one took its place
    CheckpointWriter(tmp_path, KEEP_ALL).close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step_000001", "step_000002"]
    verify_checkpoint(checkpoint_folder(tmp_path, 2))


def test_tensors_are_read_one_at_a_time(tmp_path):
    reader = CheckpointTensors(save_checkpoint(tmp_path, 1, tensors(), {}))
    assert dict(reader.shapes) == {name: value.shape for name, value in tensors().items()}
    for name, value in tensors().items():
        if name != "rng.cpu":
            assert torch.equal(reader.read(name), value)
        assert reader.read(name).dtype == reader.dtype(name) == value.dtype
    with pytest.raises(CheckpointError, match=r"step_000001: holds no 'model\.other'"):
        reader.read("model.other")


def test_verify_returns_the_manifest_and_shares_the_work(tmp_path):
    path = save_checkpoint(tmp_path, 4, tensors(), {})
    assert verify_checkpoint(path)["step"] == 4
    for name in [name for name in sorted(file.name for file in path.iterdir()) if name != "manifest.json"]:
        content = (path / name).read_bytes()
        (path / name).write_bytes(b"!" + content[1:])
        found = 0
        for part in range(5):
            try:
                verify_checkpoint(path, part, 5)
            except CheckpointError:
                found += 1
        (path / name).write_bytes(content)
        assert found == 1, name
