"""Tensor parallelism with sequence parallel norms and a loss parallel over the vocabulary.

Shoeybi et al. 2019 (arXiv:1909.08053) for the matrices, Korthikanti et al. 2022 (arXiv:2205.05198) for the norms:
query, key, value, gate and up projections are divided by output, output and down projections by input, the embedding
and the head by vocabulary; between blocks each rank keeps its part of the sequence. So a block costs two all-gathers
and two reduce-scatters in each direction, and no activation outside attention and feed-forward is held twice.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from firstlight.parallel.blocks import blocks
from firstlight.parallel.collectives import arrived
from firstlight.parallel.vocabulary import VocabularyParallelLoss


def apply_tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the matrices of `model` over `mesh` (one dimension) in place; parameters become DTensors."""
    body: Any = model.model
    sequence = Shard(1)
    table = RowwiseParallel(input_layouts=Replicate(), output_layouts=sequence)
    plan: dict[str, Any] = {"norm": SequenceParallel(), "embed_positions": table}
    if isinstance(body.embed_tokens, nn.Embedding):
        plan["embed_tokens"] = table
    elif _has_parameters(body, "embed_tokens"):  # the matrix of a tied head, without a look-up
        rows = distribute_tensor(body.embed_tokens.weight, mesh, [Shard(0)], src_data_rank=None)
        body.embed_tokens.weight = nn.Parameter(rows)
    parallelize_module(body, mesh, {name: style for name, style in plan.items() if _has_parameters(body, name)})
    if "embed_tokens" in plan:  # a compiled block cannot take what is still on its way
        body.embed_tokens.register_forward_hook(lambda _module, _inputs, hidden: arrived(hidden))
    if model.lm_head is not None and _has_parameters(model, "lm_head"):
        parallelize_module(model, mesh, {"lm_head": ColwiseParallel(input_layouts=sequence)})
    for block in blocks(model):
        parallelize_module(block, mesh, _block_plan(block))
    loss = VocabularyParallelLoss(mesh)
    model.loss_sum, model.loss_per_token = loss.sum, loss.per_token  # type: ignore[assignment]


def _block_plan(block: Any) -> dict[str, Any]:
    by_output, by_input = ColwiseParallel(), RowwiseParallel(output_layouts=Shard(1))
    plan: dict[str, Any] = {
        "input_layernorm": SequenceParallel(),
        "post_attention_layernorm": SequenceParallel(),
        "self_attn": PrepareModuleInput(
            input_layouts=(Shard(1), None, None, None), desired_input_layouts=(Replicate(), None, None, None)
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
    if block.self_attn.q_norm is not None:  # heads are divided, so each rank normalises its own
        heads = SequenceParallel(sequence_dim=2, use_local_output=True)
        plan |= {"self_attn.q_norm": heads, "self_attn.k_norm": heads}
    return plan


def _has_parameters(module: nn.Module, name: str) -> bool:
    child = getattr(module, name)
    return child is not None and next(child.parameters(), None) is not None
