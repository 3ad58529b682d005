"""A checkpoint of any layout goes on at any other as if nothing had happened; at its own, to the last bit."""

from __future__ import annotations

import shutil
from itertools import product

import pytest
import torch

from firstlight.training.checkpoint import CheckpointTensors, checkpoint_folder

LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "one": (1, []),
    "fsdp4": (4, []),
    "tp2-pp2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
}
SAVED, LAST = 6, 12
LENGTH = [
    "training.micro_batch_size=2",
    f"checkpoint.interval_steps={SAVED}",
    f"training.total_steps={LAST}",
    "schedule.warmup_steps=2",
]


PAIRS = list(product(LAYOUTS, LAYOUTS))
SOME = [("fsdp4", "tp2-pp2"), ("tp2-pp2", "one"), ("fsdp4", "fsdp4")]


@pytest.mark.parametrize("pairs", [SOME, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=["some", "all"])
def test_saved_at_each_layout_goes_on_at_each(pairs, train_at, metrics, tmp_path):
    whole = train_at({name: (size, LENGTH + layout) for name, (size, layout) in LAYOUTS.items()})
    for before, after in pairs:
        copy = tmp_path / "runs" / f"{before}-to-{after}"
        shutil.copytree(whole[before].path, copy)
        shutil.rmtree(checkpoint_folder(copy / "checkpoints", LAST))
    resumed = train_at(
        {f"{before}-to-{after}": (LAYOUTS[after][0], LENGTH + LAYOUTS[after][1]) for before, after in pairs}
    )
    alone = metrics(whole["one"])
    assert alone[LAST] < alone[SAVED] - 0.05, "nothing was learnt, so nothing was compared"
    for before, after in pairs:
        run = resumed[f"{before}-to-{after}"]
        assert f'"resumed", "step": {SAVED}' in run.events.read_text()
        assert metrics(run) == pytest.approx(alone, rel=1e-5), run.path.name
        if before == after:
            for key in ("loss", "grad_norm", "validation/manual/loss", "samples_consumed"):
                assert metrics(run, key) == metrics(whole[before], key), (run.path.name, key)
            assert_equal_checkpoints(run, whole[before])


def assert_equal_checkpoints(run, other):
    """Every tensor of the last step, of model and optimizer alike, has the same bits in both runs."""
    found, expected = (CheckpointTensors(checkpoint_folder(folder.checkpoints, LAST)) for folder in (run, other))
    assert found.shapes == expected.shapes
    assert any(name.startswith("optimizer.") for name in found.shapes)
    for name in found.shapes:
        assert torch.equal(found.read(name), expected.read(name)), (run.path.name, name)
