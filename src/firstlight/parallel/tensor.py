"""Tensor parallelism with sequence parallel norms and a loss parallel over the vocabulary.

Shoeybi et al. 2019 (arXiv:1909.08053) for the matrices, Korthikanti et al. 2022 (arXiv:2205.05198) for the norms:
query, key, value, gate and up projections are divided by output, output and down projections by input, the embedding
and the head by vocabulary; between blocks each rank keeps its part of the sequence. So a block costs two all-gathers
and two reduce-scatters in each direction, and no activation outside attention and feed-forward is held twice.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from firstlight.model.norm import output_dtype
from firstlight.parallel.blocks import blocks
from firstlight.parallel.collectives import all_gather_autograd, arrived
from firstlight.parallel.vocabulary import VocabularyParallelLoss


def apply_tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the matrices of `model` over `mesh` (one dimension) in place; parameters become DTensors."""
    body: Any = model.model
    sequence = Shard(1)
    table = RowwiseParallel(input_layouts=Replicate(), output_layouts=sequence)
    plan: dict[str, Any] = {
        "norm": SequenceParallel(),
        "embed_positions": table,
        "embed_types": SequenceParallel(use_local_output=True),
        "embed_norm": SequenceParallel(use_local_output=True),
    }
    if isinstance(body.embed_tokens, nn.Embedding):
        plan["embed_tokens"] = table
    elif _has_parameters(body, "embed_tokens"):  # the matrix of a tied head, without a look-up
        _divide(body.embed_tokens, "weight", mesh)
    if _has_parameters(body, "embed_types"):  # a small table, whole on every rank: each looks up its part
        body.embed_types.register_forward_pre_hook(
            lambda _module, ids: distribute_tensor(ids[0], mesh, [sequence], src_data_rank=None)
        )
    parallelize_module(body, mesh, {name: style for name, style in plan.items() if _has_parameters(body, name)})
    if "embed_tokens" in plan:  # a compiled block cannot take what is still on its way
        body.embed_tokens.register_forward_hook(lambda _module, _inputs, hidden: arrived(hidden))
    if model.lm_head is not None and _has_parameters(model, "lm_head"):
        parallelize_module(model, mesh, {"lm_head": ColwiseParallel(input_layouts=sequence)})
    if model.head_bias is not None:
        _divide(model, "head_bias", mesh)
    for block in blocks(model):
        parallelize_module(block, mesh, _block_plan(block))
        heads = block.self_attn.q_proj.out_features // block.self_attn.head_dim
        block.self_attn.first_head = heads // mesh.size() * mesh.get_local_rank()
        if block.self_attn.q_norm is not None and not block.self_attn.norm_heads:
            for name in ("q_norm", "k_norm"):
                _normalize_over_ranks(getattr(block.self_attn, name), mesh)
    body.own_places = functools.partial(_part_of_columns, mesh.size(), mesh.get_local_rank())
    loss = VocabularyParallelLoss(mesh)
    model.loss_sum, model.loss_scores = loss.sum, loss.scores  # type: ignore[assignment]
    model.whole = functools.partial(_whole, mesh)  # type: ignore[assignment]


def _block_plan(block: Any) -> dict[str, Any]:
    by_output, by_input = ColwiseParallel(), RowwiseParallel(output_layouts=Shard(1))
    norm = SequenceParallel(use_local_output=block.norm_place != "pre")
    plan: dict[str, Any] = {
        "input_layernorm": norm,
        "post_attention_layernorm": norm,
        "self_attn": PrepareModuleInput(
            input_layouts=(Shard(1), *(None,) * 4), desired_input_layouts=(Replicate(), *(None,) * 4)
        ),
        "self_attn.q_proj": by_output,
        "self_attn.k_proj": by_output,
        "self_attn.v_proj": by_output,
        "self_attn.o_proj": by_input,
        "mlp": PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate()),
        "mlp.up_proj": by_output,
        "mlp.down_proj": by_input,
    }
    if block.mlp.gate_proj is not None:
        plan["mlp.gate_proj"] = by_output
    if block.self_attn.q_norm is not None and block.self_attn.norm_heads:
        heads = SequenceParallel(sequence_dim=2, use_local_output=True)  # divided: each rank normalises its own
        plan |= {"self_attn.q_norm": heads, "self_attn.k_norm": heads}
    return plan


def _part_of_columns(size: int, rank: int, positions: Tensor) -> Tensor:
    """Those of the columns whose hidden states this rank holds between attention and feed-forward layers."""
    return positions.chunk(size)[rank]


def _divide(module: nn.Module, name: str, mesh: DeviceMesh) -> None:
    """Divide a parameter by its first dimension."""
    rows = distribute_tensor(getattr(module, name), mesh, [Shard(0)], src_data_rank=None)
    setattr(module, name, nn.Parameter(rows))


def _normalize_over_ranks(norm: Any, mesh: DeviceMesh) -> None:
    """Let an RMSNorm over features that are divided over ranks take the mean of the squares of all of them."""
    _divide(norm, "weight", mesh)
    group = mesh.get_group()

    def forward(part: Tensor) -> Tensor:
        squares = part.float().square().mean(-1, keepdim=True)
        mean = all_gather_autograd(squares, squares.ndim - 1, group).mean(-1, keepdim=True)
        normed = part.float() * torch.rsqrt(mean + norm.eps) * norm.weight.to_local().float()
        return normed.to(output_dtype(part, norm.stream))

    norm.forward = forward


def _whole(mesh: DeviceMesh, hidden: Tensor) -> Tensor:
    """Hidden states that are divided by sequence, whole on every rank, which all compute the same with them."""
    if not isinstance(hidden, DTensor):
        hidden = DTensor.from_local(hidden, mesh, [Shard(1)], run_check=False)
    return hidden.redistribute(placements=[Replicate()]).to_local(grad_placements=[Replicate()])


def _has_parameters(module: nn.Module, name: str) -> bool:
    child = getattr(module, name)
    return child is not None and next(child.parameters(), None) is not None
