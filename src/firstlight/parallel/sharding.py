"""FSDP2: parameters, gradients and optimizer states divided over ranks that read different samples.

Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054), Zhao et al. 2023 (arXiv:2304.11277). Each block is gathered when it is
needed. Gradients are summed, not averaged, because the loss is divided by the target tokens of all ranks beforehand.
Over a mesh of two dimensions the outer one holds copies (HSDP).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from firstlight.parallel.blocks import blocks


def apply_sharding(model: nn.Module, mesh: DeviceMesh, *, dtype: torch.dtype, reshard_after_forward: bool) -> None:
    """Shard `model` in place over `mesh`: one dimension, or copies × shards.

    dtype: of gathered parameters; gradients are reduced in fp32. The last norm and the head (and
    the table tied to it) are one unit that stays gathered, since the backward pass begins with it.
    """
    settings: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False),
    }
    body: Any = model.model
    for block in blocks(model):
        fully_shard(block, reshard_after_forward=reshard_after_forward, **settings)
    tied = model.lm_head is None
    for name in ("embed_positions",) if tied else ("embed_tokens", "embed_positions"):
        table = getattr(body, name)
        if table is not None and next(table.parameters(), None) is not None:
            fully_shard(table, reshard_after_forward=reshard_after_forward, **settings)
    fully_shard(model, reshard_after_forward=False, **settings)
    for method in ("token_loss", "token_scores"):
        register_fsdp_forward_method(model, method)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def divide_again(model: nn.Module) -> None:
    """Give back what a forward pass without a backward pass has left gathered, in the type of matrix products; until
    then those parameters are neither divided nor fp32."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def synchronize_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass of a sharded model reduces gradients over ranks, or only adds to its own."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)
