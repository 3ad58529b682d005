"""A run with dropout is the same run at any layout, micro-batch and recomputation, and after any resume."""

from __future__ import annotations

import shutil

import pytest
import torch

from firstlight.pipeline.run_training import train
from firstlight.training.checkpoint import CheckpointTensors, checkpoint_folder
from firstlight.training.run_folder import RunFolder

SAVED, LAST = 4, 8
SETTINGS = [
    *("model.hidden_dropout=0.1", "model.attention_dropout=0.1", "schedule.warmup_steps=2", "optimizer.lr=1e-3"),
    *(f"training.total_steps={LAST}", f"checkpoint.interval_steps={SAVED}", "evaluation.interval_steps=8"),
]
LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "rows16": (1, ["training.micro_batch_size=16", "training.recompute=selective"]),
    "fsdp2": (2, ["training.micro_batch_size=2"]),
    "tp2": (2, ["parallel.tensor=2", "training.recompute=full"]),
    "cp2": (2, ["parallel.context=2", "training.recompute=selective"]),
    "pp2": (2, ["parallel.pipeline=2", "training.micro_batch_size=2"]),
    "pp2-tp2": (4, ["parallel.pipeline=2", "parallel.tensor=2", "parallel.pipeline_schedule=zbv"]),
    "cp2-fsdp2": (4, ["parallel.context=2"]),
}


@pytest.mark.slow
def test_losses_and_weights_are_those_of_one_process(train_at, metrics):
    runs = train_at(
        {"one": (1, SETTINGS)} | {name: (LAYOUTS[name][0], SETTINGS + LAYOUTS[name][1]) for name in LAYOUTS}
    )
    alone = metrics(runs["one"])
    assert alone[LAST] < alone[1] - 0.02, "nothing was learnt, so nothing was compared"
    expected = tensors(runs["one"])
    for name in LAYOUTS:
        assert metrics(runs[name]) == pytest.approx(alone, rel=1e-5), name
        assert metrics(runs[name], "grad_norm") == pytest.approx(metrics(runs["one"], "grad_norm"), rel=1e-4), name
        for key, value in tensors(runs[name]).items():
            if key.startswith("model."):  # AdamW makes much of rounding where gradients are next to nothing
                torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}")


def test_resumed_it_goes_on_to_the_last_bit(recipe, metrics, tmp_path):
    for name in ("whole", "resumed"):
        if name == "resumed":
            shutil.copytree(tmp_path / "runs" / "whole", tmp_path / "runs" / name)
            shutil.rmtree(checkpoint_folder(tmp_path / "runs" / name / "checkpoints", LAST))
        train(str(recipe), [f"name={name}", *SETTINGS])
    whole, resumed = (RunFolder(tmp_path / "runs" / name) for name in ("whole", "resumed"))
    assert f'"resumed", "step": {SAVED}' in resumed.events.read_text()
    for key in ("loss", "grad_norm", "validation/manual/loss"):
        assert metrics(resumed, key) == metrics(whole, key), key
    expected = tensors(whole)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(resumed).items())
    train(str(recipe), ["name=resumed", *SETTINGS, "training.total_steps=10", "model.hidden_dropout=0"])
    assert RunFolder(tmp_path / "runs" / "resumed").config.model.hidden_dropout == 0, "dropout may end with a run"


def tensors(run) -> dict[str, torch.Tensor]:
    """Of the last checkpoint."""
    saved = CheckpointTensors(checkpoint_folder(run.checkpoints, LAST))
    return {name: saved.read(name) for name in saved.shapes}
