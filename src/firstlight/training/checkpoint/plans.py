"""The plans by which torch.distributed.checkpoint writes and reads the parts of tensors that ranks hold.

torch's own planners take a DTensor and work out which box of the whole it is, which goes wrong for some layouts (see
`firstlight.support.parts`). Here tensors of every kind become parts first; the plans know nothing else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner, LoadPlan, LoadPlanner, Metadata, ReadItem, SavePlan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.tensor import DTensor

from firstlight.support.errors import CheckpointError
from firstlight.support.parts import Part, part_of
from firstlight.training.checkpoint.room import lacking_room


def parts_of(tensors: Mapping[str, Tensor]) -> dict[str, Part]:
    """The parts that this rank holds of `tensors`; none of a DTensor on a mesh that this rank is not in."""
    return {
        name: part_of(tensor)
        for name, tensor in tensors.items()
        if not isinstance(tensor, DTensor) or tensor.device_mesh.get_coordinate() is not None
    }


class PartsSavePlanner(DefaultSavePlanner):
    """Plans to write parts; a part that several ranks hold is written by one of them.

    CheckpointError, on every rank, when the disk of `folder` has no room for the parts of all; `path` is named in it.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.folder, self.path = folder, path

    def create_local_plan(self) -> SavePlan:
        return SavePlan([_write_item(name, part) for name, part in self.state_dict.items() if _is_written(part)])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        plans, metadata = super().create_global_plan(all_plans)
        size = sum(_bytes(item) for plan in plans for item in plan.items)
        if (lacking := lacking_room(self.folder, size)) is not None:
            raise CheckpointError(f"{self.path}: a checkpoint {lacking}.")
        return plans, metadata

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self.state_dict[index.fqn].local


class PartsLoadPlanner(LoadPlanner):
    """Plans to fill parts from whatever boxes were saved; CheckpointError when those leave an element out."""

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        assert metadata is not None
        self.parts: dict[str, Part] = state_dict
        self.saved = metadata.state_dict_metadata

    def create_local_plan(self) -> LoadPlan:
        items: list[ReadItem] = []
        for name, part in self.parts.items():
            if not part.local.numel():
                continue
            saved = self.saved[name]
            assert isinstance(saved, TensorStorageMetadata)
            reads = create_read_items_for_chunk_list(name, saved, [_chunk(part)])
            if sum(math.prod(read.lengths) for read in reads) != part.local.numel():
                raise CheckpointError(f"'{name}' was not saved whole")
            items += reads
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise CheckpointError(f"'{read_item.dest_index.fqn}' is not a tensor")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        target = self.parts[read_item.dest_index.fqn].local
        for dim, (begin, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            target = target.narrow(dim, begin, length)
        return target

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing is left to do: `resolve_tensor` gave a view of the part."""


def _is_written(part: Part) -> bool:
    """False for the empty part that a rank gets when there are more ranks than rows."""
    return part.local.numel() > 0 or math.prod(part.size) == 0


def _chunk(part: Part) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=part.offsets, sizes=part.local.size())


def _write_item(name: str, part: Part) -> WriteItem:
    properties = TensorProperties(dtype=part.local.dtype)
    return WriteItem(
        index=MetadataIndex(name, part.offsets),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(chunk=_chunk(part), properties=properties, size=part.size),
    )


def _bytes(item: WriteItem) -> int:
    assert item.tensor_data is not None
    return math.prod(item.tensor_data.chunk.sizes) * item.tensor_data.properties.dtype.itemsize
