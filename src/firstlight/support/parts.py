"""The part of a tensor that one rank holds: a box of the whole.

torch's own arithmetic is wrong where FSDP shards unevenly what tensor parallelism has already divided along the same
dimension (torch 2.13: 9 rows over tensor 2 × shard 4), so the box is worked out here, in the order in which the tensor
was really divided; the tests compare every element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


@dataclass(frozen=True)
class Part:
    """A box of a tensor: its elements, the index of the first one in the whole tensor, the whole tensor's size."""

    local: Tensor
    offsets: torch.Size
    size: torch.Size

    def of(self, whole: Tensor) -> Tensor:
        """The same box of `whole`, a tensor of the whole size."""
        for dim, (offset, length) in enumerate(zip(self.offsets, self.local.shape, strict=True)):
            whole = whole.narrow(dim, offset, length)
        return whole


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: of a DTensor its shard, else the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor) -> Part:
    """The part of `tensor` on this rank, sharing its memory: of a DTensor its shard, of a plain tensor all of it."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return Part(tensor, torch.Size([0] * tensor.ndim), tensor.size())
    local = tensor.to_local()
    offsets, sizes = _box(tensor)
    if math.prod(sizes) != local.numel() or (local.numel() and sizes != list(local.size())):
        raise AssertionError(f"{tensor.placements} of {list(tensor.size())}: {sizes}, held are {list(local.size())}")
    return Part(local, torch.Size(offsets), tensor.size())


def _box(tensor: DTensor) -> tuple[list[int], list[int]]:
    """(offsets, sizes) of the shard of a DTensor.

    Mesh dimensions divide a tensor dimension from left to right, in chunks of ⌈size/ranks⌉; except that FSDP, which
    stands left of tensor parallelism in the mesh, divides what tensor parallelism has left. Its placement is then a
    strided shard, which has a `split_factor`.
    """
    offsets, sizes = [0] * tensor.ndim, list(tensor.size())
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None
    sharded = [(index, p) for index, p in enumerate(tensor.placements) if not isinstance(p, Replicate)]
    last = [(index, p) for index, p in sharded if hasattr(p, "split_factor")]
    for index, placement in [pair for pair in sharded if pair not in last] + last[::-1]:
        dim = placement.dim  # type: ignore[attr-defined]
        length = -(-sizes[dim] // tensor.device_mesh.size(index))
        begin = min(length * coordinate[index], sizes[dim])
        offsets[dim] += begin
        sizes[dim] = min(length, sizes[dim] - begin)
    return offsets, sizes
