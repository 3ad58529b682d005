"""A gradient that explodes on one rank is skipped on every rank, by the same limit, and nothing moves."""

from __future__ import annotations

import json

import pytest
import torch

from firstlight.training.checkpoint import CheckpointTensors, checkpoint_folder

SPIKES = [12, 13]
SETTINGS = [
    "training.micro_batch_size=2",
    "training.global_batch_size=8",
    "training.total_steps=16",
    "stability.least_steps=8",
    "checkpoint.interval_steps=1",
    "checkpoint.keep_last=20",
    "evaluation.interval_steps=100",
]


@pytest.mark.parametrize(
    "layout",
    [
        [],
        pytest.param(["parallel.tensor=2"], marks=pytest.mark.slow),
        pytest.param(["parallel.pipeline=2"], marks=pytest.mark.slow),
    ],
    ids=["fsdp2", "tp2", "pp2"],
)
def test_all_ranks_skip_what_one_has_too_large(layout, torchrun, metrics, tmp_path):
    run = torchrun({"kind": "spike", "rank": 1, "steps": SPIKES}, 2, "name=planted", *SETTINGS, *layout)
    verdicts = [[json.loads(line) for line in (tmp_path / f"verdicts_{rank}").open()] for rank in (0, 1)]
    assert verdicts[0] == verdicts[1], "the ranks do not judge alike"
    assert [step for step, (accepted, *_) in enumerate(verdicts[0], 1) if not accepted] == SPIKES
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    skipped = [event for event in events if event["event"] == "skipped"]
    assert [(event["step"], event["reason"]) for event in skipped] == [(step, "grad_norm") for step in SPIKES]
    tensors = [CheckpointTensors(checkpoint_folder(run.checkpoints, step)) for step in (11, 13, 14)]
    for name in tensors[0].shapes:
        if name != "rng.cpu":
            before, after, later = (checkpoint.read(name) for checkpoint in tensors)
            assert torch.equal(before, after), name
            assert not torch.equal(after, later) or name.endswith("bias"), name
    losses = metrics(run)
    assert losses[16] < losses[1] - 0.05
