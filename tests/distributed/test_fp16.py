"""fp16 with one loss scale for all: what overflows on one rank is skipped on every rank, and training goes on."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from firstlight.training.checkpoint import CheckpointTensors, checkpoint_folder

LAYOUTS = {
    "fsdp2": [],
    "tp2": ["parallel.tensor=2"],
    "pp2": ["parallel.pipeline=2"],
}
INITIAL = 65536
FP16 = [
    "training.precision=fp16",
    "training.fp16_on_cpu=true",
    f"training.loss_scale.initial={INITIAL}",
    "training.loss_scale.growth_interval=3",
]
STEPS = 9
LENGTH = [
    "training.micro_batch_size=2",
    "training.global_batch_size=8",
    f"training.total_steps={STEPS}",
    "checkpoint.interval_steps=1",
    "checkpoint.keep_last=20",
    "evaluation.interval_steps=100",
]
OVERFLOWS = [3, 4]
SCALES = {  # after each step: a second overflow halves again, and three clean steps in a row double
    1: [1, 1, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 2],
    2: [1, 1, 1, 1 / 2, 1 / 2, 1 / 2, 1, 1, 1],
}


@pytest.mark.parametrize(
    ("layout", "hysteresis"),
    [("fsdp2", 2), pytest.param("tp2", 1, marks=pytest.mark.slow), pytest.param("pp2", 1, marks=pytest.mark.slow)],
)
def test_an_overflow_on_one_rank_is_skipped_on_all(layout, hysteresis, torchrun, train_at, metrics, tmp_path):
    settings = [*FP16, *LENGTH, *LAYOUTS[layout], f"training.loss_scale.hysteresis={hysteresis}"]
    fault = {"kind": "overflow", "rank": 1, "steps": OVERFLOWS}
    run = torchrun(fault, 2, "name=planted", *settings)
    expected = [INITIAL * scale for scale in SCALES[hysteresis]]
    kept = [[json.loads(line) for line in (tmp_path / f"scales_{rank}").open()] for rank in (0, 1)]
    assert kept[0] == kept[1], "the ranks do not have the same scale"
    assert [state["scale"] for state in kept[0]] == expected
    assert [number for number, state in enumerate(kept[0], 1) if state["overflow"]] == OVERFLOWS
    assert list(metrics(run, "loss_scale").values()) == expected

    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    overflows = [event for event in events if event["event"] == "overflow"]
    assert [event["step"] for event in overflows] == OVERFLOWS
    assert [event["loss_scale"] for event in overflows] == expected[1:3], "the scale that was too high"
    tensors = {step: everything(run, step) for step in range(1, STEPS + 1)}
    for step in range(2, STEPS + 1):
        same = all(torch.equal(value, tensors[step - 1][name]) for name, value in tensors[step].items())
        assert same == (step in OVERFLOWS), f"step {step}"
    losses = metrics(run)
    assert all(losses[step] is not None and math.isfinite(losses[step]) for step in losses if step not in OVERFLOWS)
    assert losses[STEPS] < losses[1] - 0.03

    resumed = tmp_path / "runs" / "resumed"
    shutil.copytree(run.path, resumed)
    for step in range(6, STEPS + 1):
        shutil.rmtree(checkpoint_folder(resumed / "checkpoints", step))
    again = train_at({"resumed": (2, settings)})["resumed"]
    for key in ("loss", "grad_norm", "loss_scale", "skipped_steps"):
        assert metrics(again, key) == metrics(run, key), key


def everything(run, step):
    """All tensors of a checkpoint but the number of steps taken, of which skipped ones are none."""
    checkpoint = CheckpointTensors(checkpoint_folder(run.checkpoints, step))
    return {name: checkpoint.read(name) for name in checkpoint.shapes if not name.startswith("rng")}


def test_a_scale_that_starts_too_high_comes_down(train_at, metrics):
    settings = [*FP16[:2], "training.loss_scale.initial=1.0e+12", "training.loss_scale.hysteresis=1"]
    run = train_at({"pp2": (2, [*settings, *LAYOUTS["pp2"]])})["pp2"]
    skipped = metrics(run, "skipped_steps")[20]
    assert 0 < skipped < 20
    assert metrics(run, "loss_scale")[20] == 1e12 / 2**skipped
