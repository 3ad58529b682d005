"""Writing a folder of torch.distributed.checkpoint tensor by tensor, from parts of whole tensors.

`torch.distributed.checkpoint.save` keeps every tensor that it has written in memory until its file is closed; here one
is held at a time. The format: in `__0_0.distcp` what `torch.save` writes of each part, one after the other, and in
`.metadata` a pickled description of the tensors, their parts and where these lie.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from firstlight.interop.safetensors_file import check_range

DATA, METADATA = "__0_0.distcp", ".metadata"


class TorchDistFile:
    """The tensors of a new checkpoint in `folder`, as elements of `dtype`; complete when it is closed."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self._described: dict[str, Any] = {}
        self._stored: dict[MetadataIndex, _StorageInfo] = {}
        self._stream = (folder / DATA).open("wb")

    def write(self, name: str, part: Tensor, offsets: Sequence[int], size: Sequence[int]) -> None:
        """Write a part of the tensor `name`, which has the whole size `size`, from index `offsets` on.

        OSError of a disk that takes no more; ConfigError for a finite number that the type cannot hold.
        """
        converted = part.to("cpu", self.dtype).contiguous()
        check_range(name, part, converted)
        if converted.untyped_storage().nbytes() != converted.nbytes:  # torch.save writes all that a view is of
            converted = converted.clone()
        described = self._described.setdefault(
            name, TensorStorageMetadata(TensorProperties(dtype=self.dtype), torch.Size(size), [])
        )
        described.chunks.append(ChunkStorageMetadata(torch.Size(offsets), converted.shape))
        begin = self._stream.tell()
        torch.save(converted, self._stream)
        self._store(MetadataIndex(name, offsets, len(described.chunks) - 1), begin)

    def write_empty(self, name: str) -> None:
        """Write an object that is nothing, as megatron-core writes the state of a module that has none."""
        self._described[name] = BytesStorageMetadata()
        content = io.BytesIO()
        torch.save([None], content)
        begin = self._stream.tell()
        self._stream.write(content.getbuffer())
        self._store(MetadataIndex(name), begin)

    def _store(self, index: MetadataIndex, begin: int) -> None:
        self._stored[index] = _StorageInfo(DATA, begin, self._stream.tell() - begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            with (self.folder / METADATA).open("wb") as stream:
                pickle.dump(Metadata(self._described, storage_data=self._stored), stream)
