"""A rank is killed in a step, and in a save: torchrun starts again, and the run is what it would have been.

Nothing is lost but the steps since the last complete checkpoint, and these are done again with the same samples.
"""

from __future__ import annotations

import json
import shutil

import pytest

from firstlight.training.checkpoint import checkpoint_folder, checkpoint_steps

SAMPLES = 8
SETTINGS = [
    "training.micro_batch_size=2",
    f"training.global_batch_size={SAMPLES}",
    "training.total_steps=12",
    "checkpoint.interval_steps=4",
    "evaluation.interval_steps=100",
]
COMPARED = ("loss", "grad_norm", "learning_rate", "samples_consumed", "tokens_consumed")


@pytest.mark.slow
def test_killed_in_a_step_and_in_a_save(train_at, torchrun, metrics, tmp_path):
    undisturbed = train_at({"undisturbed": (2, SETTINGS)})["undisturbed"]
    kills = [
        {"rank": 1, "step": 7, "when": "step", "saved": 4},
        {"rank": 1, "step": 8, "when": "save"},
        {"rank": 0, "step": 11, "when": "step", "saved": 8},
    ]
    run = torchrun({"kind": "kills", "kills": kills}, 2, "name=killed", *SETTINGS, restarts=3)
    left = json.loads((tmp_path / "left_1").read_text())
    assert ".step_000008.tmp" in left and "step_000008" not in left, "killed before or after the save, not in it"

    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "resumed"] == [4, 4, 8]
    assert events[-1]["event"] == "finished"
    for key in COMPARED:
        assert metrics(run, key) == metrics(undisturbed, key), key
    assert metrics(run, "samples_consumed") == {step: SAMPLES * step for step in range(1, 13)}
    assert checkpoint_steps(run.checkpoints) == [8, 12]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step_000008", "step_000012"]


def test_goes_on_with_another_number_of_processes(train_at, metrics, tmp_path):
    begun = train_at({"four": (4, SETTINGS)})["four"]
    jobs = {}
    for size in (2, 1):
        copy = tmp_path / "runs" / f"to-{size}"
        shutil.copytree(begun.path, copy)
        shutil.rmtree(checkpoint_folder(copy / "checkpoints", 12))
        jobs[copy.name] = (size, SETTINGS)
    for run in train_at(jobs).values():
        assert '"resumed", "step": 8' in run.events.read_text()
        assert metrics(run) == pytest.approx(metrics(begun), rel=1e-5)
        assert metrics(run, "samples_consumed") == metrics(begun, "samples_consumed")
