"""Checkpoints are whole or absent, verified before use, and never run code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from firstlight.config import CheckpointConfig
from firstlight.support.errors import CheckpointError
from firstlight.training.checkpoint import (
    checkpoint_steps,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    verify_checkpoint,
)


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


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    saved = tensors(3)
    save_checkpoint(tmp_path, 3, saved, {"samples_consumed": 12})
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
    import hashlib
    import json

    description = json.loads(manifest.read_text())
    content = (path / ".metadata").read_bytes()
    description["files"][".metadata"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="which checkpoint metadata never needs"):
        load_checkpoint(tmp_path, zeros())
    assert not trace.exists()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, tensors(), {})
    monkeypatch.setattr("firstlight.training.checkpoint.write_json", _full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, tensors(), {})
    assert checkpoint_steps(tmp_path) == [1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step_000001"]


def _full_disk(*_):
    raise OSError(28, "No space left on device")


def test_retention_keeps_the_newest_and_the_multiples(tmp_path):
    for step in range(1, 9):
        save_checkpoint(tmp_path, step, {"x": torch.zeros(1)}, {})
    (tmp_path / ".step_000009.tmp").mkdir()
    prune_checkpoints(tmp_path, CheckpointConfig(keep_last=2, keep_every_steps=3))
    assert checkpoint_steps(tmp_path) == [3, 6, 7, 8]
    assert not (tmp_path / ".step_000009.tmp").exists()


def test_verify_returns_the_manifest(tmp_path):
    path = save_checkpoint(tmp_path, 4, tensors(), {})
    assert verify_checkpoint(path)["step"] == 4
