"""How fast the ranks of each group of a layout can send to each other.

Neighbours in rank share a machine as far as it goes (`firstlight.config.parallel`). A group inside one machine has its
fast link. One that spans machines is as fast as the network of all its members in a machine together, which is how
libraries lay their rings: eight members use eight network cards, one member, with seven of other groups beside it,
only its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.config.parallel import Layout
from firstlight.planning.devices import Device


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes that one rank can send in a second to its group for each dimension of a layout."""

    tensor: float
    context: float
    data: float
    """Ranks that share parameters: data-parallel shards and context-parallel ranks together."""
    replicate: float
    pipeline: float


def links_of(layout: Layout, device: Device) -> Links:
    """The links of a layout on machines full of `device`."""
    tensor, shards = layout.tensor, layout.shard * layout.context
    return Links(
        tensor=_link(device, 1, tensor),
        context=_link(device, tensor, layout.context),
        data=_link(device, tensor, shards),
        replicate=_link(device, tensor * shards, layout.replicate),
        pipeline=_link(device, tensor * shards * layout.replicate, layout.pipeline),
    )


def _link(device: Device, stride: int, size: int) -> float:
    """Of a group of `size` ranks, each `stride` ranks from the next."""
    if stride * size <= device.devices_per_node:
        return device.link_bytes_per_second
    in_machine = max(1, device.devices_per_node // stride)
    return min(device.link_bytes_per_second, in_machine * device.network_bytes_per_second)
