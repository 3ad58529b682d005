"""How fast the sizes of a ladder train on this machine: a few steps on random tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, cast

import torch

from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.planning.flops import training_flops_per_token
from firstlight.planning.ladder import Rung
from firstlight.tokens.loader import TokenBatch
from firstlight.tokens.objective import next_token
from firstlight.training.device import choose_device
from firstlight.training.run_folder import RunFolder
from firstlight.training.trainer import Trainer

WARM_UP_STEPS, TIMED_STEPS = 1, 3
LONGEST_SECONDS = 8.0
"""A size that is expected to take longer to time is not timed; it counts with the rate of the largest one that is."""


def seconds_per_flop(rungs: Sequence[Rung]) -> list[float]:
    """Seconds per model FLOP of each rung, from the time of a step, without torch.compile; in the order given."""
    rates: dict[tuple[int, int], float] = {}
    rate = 0.0
    for rung in sorted(rungs, key=lambda rung: (rung.parameters, rung.tokens)):
        key = rung.parameters, rung.config.batch(1).global_batch_size
        if key in rates:
            continue
        expected = rate * flops_of_step(rung) * (WARM_UP_STEPS + TIMED_STEPS)
        if expected <= LONGEST_SECONDS:
            rate = time_step(rung) / flops_of_step(rung)
        rates[key] = rate
    return [rates[rung.parameters, rung.config.batch(1).global_batch_size] for rung in rungs]


def flops_of_step(rung: Rung) -> float:
    """Model FLOPs of one optimizer step."""
    length = rung.config.data.sequence_length
    tokens = rung.config.batch(1).global_batch_size * length
    return training_flops_per_token(rung.model, length, rung.config.predicted_share) * tokens


def time_step(rung: Rung) -> float:
    """Median seconds of an optimizer step on random tokens; the model is thrown away."""
    config = rung.config.model_copy(update={"model": rung.model})
    device = choose_device(config.training.device)
    model = ParallelModel(config, Ranks(device=device))
    model.materialize()
    model.init_weights()
    run = RunFolder(config.run_folder, writes=False)
    none = cast(Any, None)  # the batch is made here, so there is no stream
    trainer = Trainer(config, run, model, none, objective=next_token, eod_id=0, peak_flops=1.0)
    rows, length = trainer.batch.global_batch_size, config.data.sequence_length
    generator = torch.Generator().manual_seed(0)
    assert rung.model.vocab_size is not None
    tokens = torch.randint(rung.model.vocab_size, (rows, length + 1), generator=generator)
    batch = TokenBatch(0, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    seconds = []
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        started = time.perf_counter()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP_STEPS:])
