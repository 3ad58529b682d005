"""The processes of a run as one object: who this one is, with whom it shares what, and the sums over all of them.

One process needs no process group: then every group is absent and every sum is what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from firstlight.config import Layout
from firstlight.config.parallel import Place
from firstlight.support import ranks as support
from firstlight.support.errors import ConfigError

TIMEOUT = timedelta(minutes=30)
"""How long a collective waits for the others; long enough for a first compilation."""
PATIENCE = timedelta(days=30)
"""How long the others wait for the chief to read, clean and tokenize text."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of a run."""

    layout: Layout = field(default_factory=Layout)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    mesh: DeviceMesh | None = None
    """pipeline × replicate × fsdp × tensor, where fsdp = shard × context; None in one process."""
    context_group: dist.ProcessGroup | None = None
    """The ranks that share this one's sequences."""
    patient_group: dist.ProcessGroup | None = None
    """All ranks, on the host, for what one of them does alone while the others wait."""

    @property
    def chief(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def place(self) -> Place:
        """Where this process stands in the layout."""
        return self.layout.place(self.rank)

    @property
    def data_rank(self) -> int:
        """Number of this process among the data-parallel ranks."""
        return self.place.replicate * self.layout.shard + self.place.shard

    def dimension(self, name: str) -> DeviceMesh:
        """The mesh along one dimension: pipeline, replicate, fsdp or tensor."""
        assert self.mesh is not None
        return self.mesh[name]

    @property
    def fsdp_mesh(self) -> DeviceMesh | None:
        """What FSDP2 shards over: (fsdp), or (replicate, fsdp); None when there is one rank."""
        if self.mesh is None or self.layout.data * self.layout.context == 1:
            return None
        return self.mesh["replicate", "fsdp"] if self.layout.replicate > 1 else self.mesh["fsdp"]

    def sum_over_all(self, values: Tensor) -> Tensor:
        """`values` summed over every process of the run, in place."""
        if self.mesh is not None:
            dist.all_reduce(values)
        return values

    def sum_over_data(self, values: Tensor) -> Tensor:
        """`values`, equal on the ranks that read the same samples, summed once for each data-parallel rank."""
        if self.mesh is None:
            return values
        return self.sum_over_all(values.clone()) / self.layout.model_ranks

    def from_chief(self, make: Callable[[], T]) -> T:
        """What `make` gives on the chief, on every process; the others wait, for days if need be."""
        if self.mesh is None:
            return make()
        box = [make() if self.chief else None]
        dist.broadcast_object_list(box, src=0, group=self.patient_group)
        return cast("T", box[0])


def start_ranks(layout: Layout, device: torch.device) -> Ranks:
    """Join the processes that torchrun (or anything that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) started."""
    if layout.world_size == 1:
        return Ranks(layout, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # torchrun keeps one store for all restarts: under a name of this start, no address of an earlier one is found.
        store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(support.start(), store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
    return make_ranks(layout, device)


def make_ranks(layout: Layout, device: torch.device) -> Ranks:
    """The groups of a layout over the process group that there is."""
    assert dist.get_world_size() == layout.world_size
    shape = (layout.pipeline, layout.replicate, layout.shard * layout.context, layout.tensor)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("pipeline", "replicate", "fsdp", "tensor"))
    context_group = None
    if layout.context > 1:
        finer = init_device_mesh(device.type, layout.sizes, mesh_dim_names=Place._fields)
        context_group = finer.get_group("context")
    patient_group = dist.new_group(backend="gloo", timeout=PATIENCE) if dist.get_backend() != "fake" else None
    return Ranks(layout, device, dist.get_rank(), mesh, context_group, patient_group)


def local_device(kind: torch.device) -> torch.device:
    """The device of this process among those of its machine: cuda → cuda:LOCAL_RANK.

    ConfigError when the machine has more processes than devices.
    """
    if kind.type != "cuda" or kind.index is not None:
        return kind
    found, processes = torch.cuda.device_count(), support.local_world_size()
    if found < processes:
        raise ConfigError(
            f"{processes} processes on a machine with {found} GPU{'s' if found > 1 else ''}; start at most {found} on "
            "each, or use training.device=cpu."
        )
    return torch.device("cuda", support.local_rank())


def stop_ranks() -> None:
    """Leave the process group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
