"""Collectives under one name, whatever the version of torch calls them (renamed in 2.13)."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor

_gather_autograd: Any = getattr(functional, "all_gather_single_autograd", None) or getattr(
    functional, "all_gather_tensor_autograd", None
)
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def all_gather(mine: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[n, …] of each rank → [ranks × n, …], in the order of ranks; no gradient."""
    everyone = mine.new_empty(dist.get_world_size(group) * len(mine), *mine.shape[1:])
    _gather(everyone, mine.contiguous(), group=group)
    return everyone


def all_gather_autograd(mine: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """As `all_gather` along `dim`; the gradient of each rank's part is summed over the ranks. Can be compiled."""
    return _gather_autograd(mine.contiguous(), gather_dim=dim, group=group)


def arrived(tensor: Tensor) -> Tensor:
    """`tensor` as a plain one: a collective that is under way is waited for. Differentiable."""
    return tensor.clone() if isinstance(tensor, functional.AsyncCollectiveTensor) else tensor
