"""One of two or four processes: with dropout every layout has the losses and gradients of one process.

Run as `python dropout_rank.py RANK WORLD_SIZE STORE`, STORE being a file that all ranks meet at.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from firstlight.config import RunConfig
from firstlight.model import build_model
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks, make_ranks
from firstlight.recipe import parse_config
from firstlight.support.peers import leave_process
from firstlight.tokens.batches import rank_slice
from firstlight.tokens.draws import draw
from firstlight.tokens.loader import TokenBatch
from firstlight.tokens.permutation import derive_key

LENGTH, VOCABULARY, ROWS, FIRST_SAMPLE = 32, 131, 16, 40
LAYOUTS: dict[int, tuple[dict[str, Any], ...]] = {
    2: ({"shard": 2}, {"tensor": 2}, {"pipeline": 2}, {"context": 2}),
    4: (
        {"tensor": 2, "shard": 2},
        {"context": 2, "tensor": 2},
        {"pipeline": 2, "tensor": 2},
        {"pipeline": 2, "context": 2},
        {"pipeline": 2, "shard": 2, "pipeline_schedule": "zbv"},
    ),
}
FAMILIES: tuple[dict[str, Any], ...] = (
    {"architecture": "gpt2"},
    {"architecture": "bert"},
    {"architecture": "mistral", "num_key_value_heads": 4, "sliding_window": 10},
    {"architecture": "olmo2"},
    {"architecture": "modernbert", "sliding_window": 8},
)


def main(rank: int, world_size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    for place, parallel in enumerate(LAYOUTS[world_size]):
        ranks = make_ranks(config({}, parallel, "none", 2).layout(world_size), torch.device("cpu"))
        for number in [place % 3] if world_size == 2 else [place, (place + 2) % len(FAMILIES)]:
            recompute = ("none", "selective", "full")[(place + number) % 3]
            check(
                ranks,
                config(FAMILIES[number], parallel, recompute, 1 + number % 2),
                with_documents=(place + number) % 2 == 0,
            )
    dist.barrier()
    dist.destroy_process_group()


def config(family: dict[str, Any], parallel: dict[str, Any], recompute: str, micro_batch_size: int) -> RunConfig:
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    settings = {
        "name": "dropout",
        "seed": 7,
        "data": {"sequence_length": LENGTH},
        "model": {**shape, "initializer_range": 0.1, "hidden_dropout": 0.1, "attention_dropout": 0.2, **family},
        "training": {
            "total_steps": 1,
            "micro_batch_size": micro_batch_size,
            "global_batch_size": ROWS,
            "compile": False,
            "recompute": recompute,
            "precision": "fp32",
        },
        "parallel": parallel,
    }
    parsed = parse_config(settings, "dropout")
    return parsed.model_copy(update={"model": parsed.model.resolved(sequence_length=LENGTH)})


def check(ranks: Ranks, run: RunConfig, with_documents: bool) -> None:
    from against_one import assert_same_gradients, assert_same_scores  # beside the script, not in the tests' package

    where = (run.model.architecture, str(ranks.layout), run.training.recompute)
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(0, VOCABULARY, (2, ROWS, LENGTH), generator=generator)
    documents = torch.arange(LENGTH).expand(ROWS, LENGTH) // 11 if with_documents else None
    batch = {"input_ids": inputs, "targets": targets, "document_ids": documents}
    model = ParallelModel(run, ranks)
    model.materialize()
    model.init_weights()
    first, count = rank_slice(0, ROWS, ranks.data_rank, ranks.layout.data)
    mine = {name: None if value is None else value[first : first + count] for name, value in batch.items()}
    factor = torch.tensor(1.0 / targets.numel())
    loss = ranks.sum_over_all(model.forward_backward(TokenBatch(FIRST_SAMPLE, **mine), factor)) / ranks.layout.tensor

    alone = build_model(run.model, seed=run.seed)
    samples = np.arange(FIRST_SAMPLE, FIRST_SAMPLE + ROWS)
    keys = torch.from_numpy(draw(derive_key(run.seed, "dropout"), samples).view(np.int64))
    expected = alone.token_loss(**batch, dropout_keys=keys) * factor
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5, msg=lambda text: f"{where}: {text}")
    other = alone.token_loss(**batch, dropout_keys=keys + 1) * factor
    assert abs(other - expected) > 1e-3, "other masks would not have been noticed"
    assert_same_gradients(model, alone, where)
    alone.eval()
    assert_same_scores(model, alone, mine, where)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    leave_process()
