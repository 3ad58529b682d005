"""One of four processes: losses and gradients of every family and objective at layouts of four ranks.

Run as `python family_rank.py RANK WORLD_SIZE STORE [all]`, STORE being a file that all ranks meet at; without `all`
each family is tried at two of the layouts.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from against_one import assert_same_gradients, assert_same_scores

from firstlight.config import RunConfig
from firstlight.model import build_model
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks, make_ranks
from firstlight.recipe import parse_config
from firstlight.support.peers import leave_process
from firstlight.tokens.batches import rank_slice
from firstlight.tokens.loader import TokenBatch

LENGTH, VOCABULARY, ROWS = 32, 131, 8
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"tensor": 2, "shard": 2},
    {"context": 2, "tensor": 2},
    {"pipeline": 2, "tensor": 2},
    {"pipeline": 2, "context": 2},
    {"tensor": 4},
)
FAMILIES: tuple[dict[str, Any], ...] = (
    {"architecture": "mistral", "num_key_value_heads": 4, "sliding_window": 10},
    {"architecture": "qwen2"},
    {"architecture": "olmo2"},
    {"architecture": "gpt2", "objective": "masked"},
    {"architecture": "llama", "objective": "masked", "tie_word_embeddings": True},
    {"architecture": "bert"},
    {"architecture": "bert", "tie_word_embeddings": False},
    {"architecture": "modernbert", "sliding_window": 8},
)


def main(rank: int, world_size: int, store: str, everything: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    for place, parallel in enumerate(LAYOUTS):
        ranks = make_ranks(config({}, parallel).layout(world_size), torch.device("cpu"))
        for number, family in enumerate(FAMILIES):
            for documents in (False, True):
                if everything or (number - place) % len(LAYOUTS) == 2 * documents:
                    check(ranks, config(family, parallel), documents)
    dist.barrier()
    dist.destroy_process_group()


def config(family: dict[str, Any], parallel: dict[str, Any]) -> RunConfig:
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    settings = {
        "name": "families",
        "data": {"sequence_length": LENGTH},
        "model": {**shape, "initializer_range": 0.1, **family},
        "training": {
            "total_steps": 1,
            "micro_batch_size": 2,
            "global_batch_size": ROWS,
            "compile": False,
            "precision": "fp32",
        },
        "parallel": parallel,
    }
    parsed = parse_config(settings, "families")
    return parsed.model_copy(update={"model": parsed.model.resolved(sequence_length=LENGTH)})


def global_batch(run: RunConfig, with_documents: bool) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(0, VOCABULARY, (2, ROWS, LENGTH), generator=generator)
    if not run.model.causal:
        targets = targets.masked_fill(torch.rand(ROWS, LENGTH, generator=generator) > 0.2, -100)
    documents = torch.randint(0, 2, (ROWS, LENGTH), generator=generator).cumsum(1) // 5 if with_documents else None
    return {"input_ids": inputs, "targets": targets, "document_ids": documents}


def check(ranks: Ranks, run: RunConfig, with_documents: bool) -> None:
    where = (run.model.architecture, run.model.objective, str(ranks.layout), with_documents)
    batch = global_batch(run, with_documents)
    model = ParallelModel(run, ranks)
    model.materialize()
    model.init_weights()
    first, count = rank_slice(0, ROWS, ranks.data_rank, ranks.layout.data)
    mine = {name: None if value is None else value[first : first + count] for name, value in batch.items()}
    factor = torch.tensor(1.0 / float((batch["targets"] != -100).sum()))
    loss = ranks.sum_over_all(model.forward_backward(TokenBatch(0, **mine), factor)) / ranks.layout.tensor

    alone = build_model(run.model, seed=run.seed)
    expected = alone.token_loss(**batch) * factor
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5, msg=lambda text: f"{where}: {text}")
    assert_same_gradients(model, alone, where)
    assert_same_scores(model, alone, mine, where)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["all"])
    leave_process()
