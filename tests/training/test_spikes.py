"""Planted faults in a real run: skipped, gone back from, recorded with the text that was read, and resumed alike."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstlight.pipeline import run_training
from firstlight.pipeline.diagnosing import doctor
from firstlight.pipeline.run_training import train
from firstlight.support.errors import DivergedError
from firstlight.tokens.objective import next_token
from firstlight.training import trainer
from firstlight.training.checkpoint import CheckpointTensors, checkpoint_folder, checkpoint_steps, read_state
from firstlight.training.run_folder import RunFolder

BATCH, STEPS = 8, 60
MASK = 2
SETTINGS = [
    f"training.total_steps={STEPS}",
    "optimizer.lr=3e-3",
    "optimizer.min_lr=3e-3",
    "stability.least_steps=8",
    "stability.rollback_after=6",
    "checkpoint.interval_steps=10",
    "checkpoint.keep_last=10",
    "data.max_epochs=1000",
]


def events(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.events.read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def metrics(run: RunFolder, key: str = "loss") -> dict[int, float]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def found(run: RunFolder) -> dict[str, str]:
    """What the doctor finds: severity by name."""
    return {finding.kind: finding.severity for finding in doctor(run.path)[1].findings}


def in_steps(first_sample: int, steps: range) -> bool:
    return first_sample // BATCH + 1 in steps


@pytest.fixture
def plant_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[range], None]:
    """`plant_noise(range(20, 23))` fills the batches of these steps with one token of no text."""

    def plant(steps: range) -> None:
        def objective(rows: Any, first_sample: int) -> Any:
            if in_steps(first_sample, steps):
                rows = np.full_like(rows, MASK)
            return next_token(rows, first_sample)

        monkeypatch.setattr(run_training, "objective_of", lambda *_: objective)

    return plant


@pytest.fixture
def plant_rate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[range, float], None]]:
    """`plant_rate(range(20, 21), 1000)` multiplies the learning rate while these batches are read."""
    step_of, plain = trainer.Trainer.train_step, trainer.learning_rate
    reading = [0]

    def noted(self: trainer.Trainer, batch: Any, *arguments: Any) -> Any:
        reading[0] = batch.first_sample
        return step_of(self, batch, *arguments)

    def plant(steps: range, factor: float) -> None:
        monkeypatch.setattr(trainer.Trainer, "train_step", noted)
        monkeypatch.setattr(
            trainer, "learning_rate", lambda *a: plain(*a) * (factor if in_steps(reading[0], steps) else 1)
        )

    return plant


def test_spoilt_batches_are_skipped_and_recorded_with_their_text(tiny_recipe: Path, plant_noise: Any) -> None:
    plant_noise(range(30, 33))
    run = train(tiny_recipe, SETTINGS)
    skipped = events(run, "skipped")
    assert [event["step"] for event in skipped] == [30, 31, 32]
    assert [event["samples"] for event in skipped] == [[BATCH * (step - 1), BATCH * step] for step in (30, 31, 32)]
    for event in skipped:
        assert event["reason"] in ("loss", "grad_norm")
        assert event["loss" if event["reason"] == "loss" else "grad_norm"] > event["limit"]
        for document in event["documents"]:
            assert document["source"] in ("manual", "code")
            assert document["text"].strip()
            assert document["document"] >= 0
    assert len(skipped[0]["documents"]) == 3
    assert not events(run, "rolled_back")
    assert metrics(run, "skipped_steps")[STEPS] == 3
    assert metrics(run)[33] < metrics(run)[1] - 0.5, "it did not go on as before"
    assert "skipped steps" in found(run)


def test_a_skipped_step_moves_nothing(tiny_recipe: Path, plant_noise: Any) -> None:
    plant_noise(range(30, 33))
    run = train(
        tiny_recipe, [*SETTINGS, "training.total_steps=35", "checkpoint.interval_steps=1", "checkpoint.keep_last=9"]
    )
    before, after = (CheckpointTensors(checkpoint_folder(run.checkpoints, step)) for step in (29, 32))
    assert before.shapes == after.shapes
    assert all(torch.equal(before.read(name), after.read(name)) for name in before.shapes)


def test_a_damaged_model_goes_back_and_past_the_samples(tiny_recipe: Path, plant_rate: Any) -> None:
    clean = train(tiny_recipe, [*SETTINGS, "name=clean"])
    plant_rate(range(35, 36), 3000.0)
    run = train(tiny_recipe, [*SETTINGS, "name=spoilt"])
    (back,) = events(run, "rolled_back")
    assert back["to_step"] == 30
    assert back["step"] > 35
    assert back["skipped_samples"] == [30 * BATCH, back["step"] * BATCH]
    assert metrics(run, "samples_consumed")[STEPS] == (STEPS + back["step"] - 30) * BATCH
    state = read_state(checkpoint_folder(run.checkpoints, STEPS))
    assert state["skipped_samples"] == [back["skipped_samples"]]
    assert state["guard"]["rollbacks"] == 1
    end, reference = (metrics(folder, "validation/manual/loss")[STEPS] for folder in (run, clean))
    assert end == pytest.approx(reference, rel=0.02)
    assert "rolled back" in found(run) and "rolled back" not in found(clean)


def test_without_the_guard_the_damage_stays(tiny_recipe: Path, plant_rate: Any) -> None:
    clean = train(tiny_recipe, [*SETTINGS, "name=clean"])
    plant_rate(range(35, 36), 3000.0)
    run = train(tiny_recipe, [*SETTINGS, "name=spoilt", "stability.guard=false"])
    assert not events(run, "skipped")
    end, reference = (metrics(folder, "validation/manual/loss")[STEPS] for folder in (run, clean))
    assert end > 1.05 * reference
    assert found(run)["loss spike without return"] == "problem"
    assert "problem" not in found(clean).values()


def test_a_run_that_went_back_resumes_bit_identical(tiny_recipe: Path, plant_rate: Any) -> None:
    plant_rate(range(35, 36), 3000.0)
    run = train(tiny_recipe, SETTINGS)
    assert len(events(run, "rolled_back")) == 1
    expected = metrics(run)
    final = CheckpointTensors(checkpoint_folder(run.checkpoints, STEPS))
    whole = {name: final.read(name).clone() for name in final.shapes}
    for step in checkpoint_steps(run.checkpoints):
        if step > 50:
            shutil.rmtree(checkpoint_folder(run.checkpoints, step))
    again = train(run.path)
    assert len(events(again, "resumed")) == 1
    assert metrics(again) == expected
    found = CheckpointTensors(checkpoint_folder(again.checkpoints, STEPS))
    assert all(torch.equal(value, found.read(name)) for name, value in whole.items())


def test_what_comes_again_and_again_stops_with_a_diagnosis(tiny_recipe: Path, plant_rate: Any) -> None:
    plant_rate(range(35, 10_000), 3000.0)
    with pytest.raises(DivergedError, match=r"going back 2 times did not help \(stability.max_rollbacks\)") as caught:
        train(tiny_recipe, [*SETTINGS, "stability.max_rollbacks=2"])
    assert caught.value.exit_code == 3
    run = RunFolder(tiny_recipe.parent / "runs" / "tiny")
    assert [event["rollbacks"] for event in events(run, "rolled_back")] == [1, 2]
    assert len(events(run, "diverged")) == 1
    assert found(run)["diverged"] == "problem"
    newest = CheckpointTensors(checkpoint_folder(run.checkpoints, max(checkpoint_steps(run.checkpoints))))
    assert all(torch.isfinite(newest.read(name)).all() for name in newest.shapes if name.startswith("model."))


def test_a_fault_at_the_very_end_is_not_taken_for_the_end(tiny_recipe: Path, plant_rate: Any) -> None:
    plant_rate(range(STEPS - 3, STEPS - 2), 300.0)
    run = train(tiny_recipe, SETTINGS)
    assert len(events(run, "rolled_back")) == 1
    assert math.isfinite(metrics(run)[STEPS])
    assert metrics(run)[STEPS] < metrics(run)[1] - 0.5
