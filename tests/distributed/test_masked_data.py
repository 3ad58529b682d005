"""A masked run reads the same inputs and targets at any number of processes, and goes on bit for bit after a stop."""

from __future__ import annotations

import shutil

import pytest
import torch

from firstlight.pipeline.run_training import sample_stream
from firstlight.pipeline.stages import prepare
from firstlight.recipe import load_config
from firstlight.tokens.loader import Loader
from firstlight.tokens.objective import objective_of
from firstlight.training.checkpoint import checkpoint_folder

MASKED = ["model.objective=masked", "masking.unit=span"]
SAVED, LAST = 6, 12
LENGTH = [f"training.total_steps={LAST}", f"checkpoint.interval_steps={SAVED}", "schedule.warmup_steps=2"]


def test_ranks_together_read_the_masked_batches_of_one_process(recipe):
    prepared = prepare(load_config(recipe, MASKED))
    stream, objective = sample_stream(prepared), objective_of(prepared.config, prepared.tokenizer)

    def batches(first, rank=0, ranks=1):
        with Loader(stream, first, 16, rank, ranks, objective=objective) as loader:
            return [next(loader) for _ in range(3)]

    whole = batches(32)
    assert all((batch.targets != -100).any() and (batch.targets == -100).any() for batch in whole)
    for ranks in (2, 4):
        for number, parts in enumerate(zip(*(batches(32, rank, ranks) for rank in range(ranks)), strict=True)):
            for field in ("input_ids", "targets"):
                assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole[number], field))


def test_losses_are_those_of_one_process_and_go_on_bit_for_bit(train_at, metrics, tmp_path):
    whole = train_at({"one": (1, [*MASKED, *LENGTH]), "fsdp2": (2, [*MASKED, *LENGTH])})
    losses = metrics(whole["one"])
    assert losses[LAST] < losses[1] - 0.05, "nothing was learnt, so nothing was compared"
    assert metrics(whole["fsdp2"]) == pytest.approx(losses, rel=1e-5)
    stopped = tmp_path / "runs" / "stopped"
    shutil.copytree(whole["fsdp2"].path, stopped)
    shutil.rmtree(checkpoint_folder(stopped / "checkpoints", LAST))
    resumed = train_at({"stopped": (2, [*MASKED, *LENGTH])})["stopped"]
    assert f'"resumed", "step": {SAVED}' in resumed.events.read_text()
    for key in ("loss", "grad_norm"):
        assert metrics(resumed, key) == metrics(whole["fsdp2"], key)
