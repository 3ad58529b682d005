"""Activation recomputation: keep less of a block's forward pass, compute it again in the backward pass.

Full keeps a block's input and nothing else (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): one
more forward pass, a third more work. Selective keeps what is dear to compute and recomputes what is cheap but large
(Korthikanti et al. 2022, arXiv:2205.05198, §5): results of the linear layers, of the attention kernel and of reductions
over ranks stay; norms, activations, rotations and casts are computed again, and so are attention scores where plain
products compute them. Sequences and keys that ranks gather are gathered again, because a gathered copy is as many times
larger than all else as there are ranks. Losses and gradients stay the same to the last bit (compiled: to rounding).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from firstlight.parallel.blocks import blocks

_LINEAR = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1, torch.ops.aten._scaled_mm.default: 0}
"""Products of linear layers, and which argument is the input. Not `bmm`: in a block it only makes attention scores."""
_OTHERS = {
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops._c10d_functional.all_reduce.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
    torch.ops._c10d_functional.all_to_all_single.default,
}


def apply_recompute(model: nn.Module, mode: Literal["selective", "full"]) -> None:
    """Recompute every Transformer block in the backward pass; parameter names stay.

    Comes before `apply_compile`: a compiled block then holds the recomputation and is planned as a whole.
    """
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # dropout needs no generator
    if mode == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
        # The compiler's warning that such a region may hold no in-place operation; a block has none.
        logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    for block in blocks(model):
        block.forward = _recomputed(block.forward, options)


def _recomputed(forward: Callable, options: dict[str, Any]) -> Callable:
    # A function, not functools.partial: the compiler needs a frame of its own to start from.
    @functools.wraps(forward)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, **options, **kwargs)

    return recomputed


def _policy(_: SelectiveCheckpointContext, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    keep = operator in _OTHERS or (operator in _LINEAR and not _to_be_reduced(args[_LINEAR[operator]]))
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def _to_be_reduced(inputs: Any) -> bool:
    """Whether a linear layer with `inputs` [rows, columns] gives one rank's share of a sum: the sum is kept instead."""
    return isinstance(inputs, DTensor) and Shard(1) in inputs.placements
