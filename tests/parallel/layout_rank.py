"""One of four processes: what every layout must hold, checked with real groups.

Run as `python layout_rank.py RANK WORLD_SIZE STORE`, STORE being a file that all ranks meet at.
"""

from __future__ import annotations

import sys
from collections import Counter

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from firstlight.config import RunConfig
from firstlight.model import CausalLanguageModel, linear_cross_entropy
from firstlight.model.attention import attend
from firstlight.model.loss import linear_cross_entropy_scores
from firstlight.model.masks import attention_mask
from firstlight.parallel.context import ContextParallelAttention, local_positions
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import make_ranks
from firstlight.parallel.vocabulary import VocabularyParallelLoss
from firstlight.recipe import parse_config
from firstlight.support.parts import part_of
from firstlight.support.peers import leave_process

LENGTH = 32
LAYOUTS = (
    {"shard": 4},
    {"replicate": 2, "shard": 2},
    {"tensor": 4},
    {"tensor": 2, "shard": 2},
    {"context": 2, "tensor": 2},
    {"pipeline": 2, "tensor": 2},
    {"pipeline": 2, "shard": 2, "pipeline_schedule": "zbv"},
)


def main(rank: int, world_size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    for tied in (False, True):
        for parallel in LAYOUTS:
            check_weights(parallel, tied)
    for parallel in (
        {"shard": 4},
        {"context": 2, "tensor": 2},
        {"pipeline": 2, "shard": 2, "pipeline_schedule": "zbv"},
    ):
        check_evaluation_leaves_parameters(parallel)
    check_vocabulary_parallel_loss()
    check_context_parallel_attention()
    dist.barrier()
    dist.destroy_process_group()


def config(parallel: dict[str, object], tied: bool) -> RunConfig:
    """A small model with an uneven vocabulary and width."""
    settings = {
        "name": "layouts",
        "data": {"sequence_length": LENGTH},
        "model": {
            "vocab_size": 131,
            "hidden_size": 40,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "tie_word_embeddings": tied,
        },
        "training": {"total_steps": 1, "micro_batch_size": 1, "global_batch_size": 16, "compile": False},
        "parallel": parallel,
    }
    parsed = parse_config(settings, "layouts")
    return parsed.model_copy(update={"model": parsed.model.resolved(sequence_length=LENGTH)})


def check_weights(parallel: dict[str, object], tied: bool) -> None:
    """Every element of the model is held, on as many ranks as `copies` says, and is what one process draws."""
    run = config(parallel, tied)
    ranks = make_ranks(run.layout(dist.get_world_size()), torch.device("cpu"))
    model = ParallelModel(run, ranks)
    model.materialize()
    model.init_weights()
    expected = dict(CausalLanguageModel.from_config(run.model, seed=run.seed).named_parameters())
    held: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = part_of(parameter)
        assert torch.equal(part.local, part.of(expected[name].detach())), (parallel, name)
        held[name] += part.local.numel() / model.copies(name, parameter)
    everyone: list[Counter[str]] = [Counter()] * dist.get_world_size()
    dist.all_gather_object(everyone, held)
    total = sum(everyone, Counter())
    assert total.keys() == expected.keys(), (parallel, total.keys() ^ expected.keys())
    for name, whole in expected.items():
        assert abs(total[name] - whole.numel()) < 1e-6, (parallel, name, total[name], whole.numel())
    if ranks.layout.world_size > ranks.layout.pipeline * ranks.layout.replicate:
        assert sum(held.values()) <= sum(whole.numel() for whole in expected.values())
        assert any(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for _, p in model.named_parameters())


def check_evaluation_leaves_parameters(parallel: dict[str, object]) -> None:
    """After an evaluation a rank holds what it held before, in fp32: a checkpoint may be next."""
    run = config(parallel, tied=True)
    run = run.model_copy(update={"training": run.training.model_copy(update={"precision": "bf16"})})
    model = ParallelModel(run, make_ranks(run.layout(dist.get_world_size()), torch.device("cpu")))
    model.materialize()
    model.init_weights()
    before = {name: part_of(parameter).local.clone() for name, parameter in model.named_parameters()}
    tokens = torch.randint(0, 131, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    model.token_scores(tokens, tokens)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, (parallel, name)
        assert torch.equal(part_of(parameter).local, before[name]), (parallel, name)


def check_vocabulary_parallel_loss() -> None:
    """Loss and both gradients are those of the whole head, also where a rank holds no rows or all are ignored."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(0)
    for vocabulary in (131, 9):  # 9 rows over 4 ranks: 3, 3, 3 and none
        hidden = torch.randn(2, 12, 16, generator=generator)
        weight = torch.randn(vocabulary, 16, generator=generator)
        targets = torch.randint(0, vocabulary, (2, 12), generator=generator)
        targets[0, :5] = -100
        loss = VocabularyParallelLoss(mesh)
        whole = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        expected = linear_cross_entropy(*whole, targets)
        (3 * expected).backward()
        rows = distribute_tensor(weight, mesh, [Shard(0)], src_data_rank=None).requires_grad_()
        states = distribute_tensor(hidden, mesh, [Shard(1)], src_data_rank=None).requires_grad_()
        found = loss.sum(states, rows, targets)
        (3 * found).backward()
        torch.testing.assert_close(found, expected)
        for tensor, gradient in ((states, whole[0].grad), (rows, whole[1].grad)):
            assert tensor.grad is not None and gradient is not None
            torch.testing.assert_close(tensor.grad.to_local(), part_of(tensor).of(gradient), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            loss.scores(states, rows, targets), linear_cross_entropy_scores(hidden, weight, targets)
        )
        nothing = torch.full_like(targets, -100)
        assert loss.sum(states, rows, nothing) == 0


def check_context_parallel_attention() -> None:
    """Attention over gathered keys and values is that of the whole sequence, and so are the gradients."""
    rank, size = dist.get_rank(), dist.get_world_size()
    mine = local_positions(LENGTH, rank, size)
    columns: list[torch.Tensor] = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(columns, mine)
    assert torch.cat(columns).sort().values.equal(torch.arange(LENGTH))
    work = [int((chunk + 1).sum()) for chunk in columns]
    assert max(work) == min(work), "the causal work is not balanced"

    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, LENGTH, 8, generator=generator) for heads in (4, 2, 2))
    documents = torch.randint(0, 2, (2, LENGTH), generator=generator).cumsum(1)
    for ids in (None, documents):
        mask = None if ids is None else attention_mask(torch.arange(LENGTH), LENGTH, document_ids=ids)
        whole = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        expected = attend(*whole, mask)
        expected.square().sum().backward()
        parts = [tensor[:, :, mine].clone().requires_grad_() for tensor in (query, key, value)]
        partial = None if ids is None else attention_mask(mine, LENGTH, document_ids=ids)
        assert dist.group.WORLD is not None
        found = ContextParallelAttention(dist.group.WORLD)(*parts, partial)
        found.square().sum().backward()
        torch.testing.assert_close(found, expected[:, :, mine])
        for part, tensor in zip(parts, whole, strict=True):
            assert part.grad is not None and tensor.grad is not None
            torch.testing.assert_close(part.grad, tensor.grad[:, :, mine], atol=1e-5, rtol=1e-4)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    leave_process()
