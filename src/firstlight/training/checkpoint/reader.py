"""Reading a checkpoint: its metadata without running a pickle, its tensors whole and one at a time."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from firstlight.support.errors import CheckpointError, FirstlightError
from firstlight.support.parts import Part, part_of
from firstlight.training.checkpoint.plans import PartsLoadPlanner


class CheckpointTensors:
    """The tensors of the checkpoint in folder `path`; no model and no process group is needed to read them."""

    def __init__(self, path: Path, unpickler: type[MetadataUnpickler] | None = None) -> None:
        """unpickler: of metadata that another project wrote; unset: `MetadataUnpickler`."""
        self.path = path
        self._reader = _Reader(path, unpickler or MetadataUnpickler)
        saved = self._reader.read_metadata().state_dict_metadata
        self.tensors = {name: value for name, value in saved.items() if isinstance(value, TensorStorageMetadata)}

    @property
    def places(self) -> Collection[Any]:
        """Where the parts lie: `relative_path` of a file beside the metadata, `offset` and `length` in bytes."""
        return self._reader.read_metadata().storage_data.values()

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Name → whole shape of every tensor."""
        return {name: saved.size for name, saved in self.tensors.items()}

    def dtype(self, name: str) -> torch.dtype:
        return self.tensors[name].properties.dtype

    def read(self, name: str) -> Tensor:
        """One tensor, whole, on the CPU, put together from the parts of the ranks that saved it."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: holds no '{name}'.")
        tensor = torch.empty(self.tensors[name].size, dtype=self.dtype(name))
        self.fill({name: part_of(tensor)})
        return tensor

    def check(self, shapes: Mapping[str, torch.Size]) -> None:
        """CheckpointError when one of these tensors is not in the checkpoint, or has another shape there."""
        for name, shape in shapes.items():
            if name not in self.tensors:
                raise CheckpointError(f"{self.path}: holds no '{name}'; it is a checkpoint of another model.")
            saved = self.tensors[name].size
            if saved != shape:
                raise CheckpointError(
                    f"{self.path}: '{name}' has shape {list(saved)}, the model expects {list(shape)}; "
                    "it is a checkpoint of another model."
                )

    def fill(self, parts: Mapping[str, Part]) -> None:
        """Fill `parts` in place; CheckpointError as for `check`."""
        self.check({name: part.size for name, part in parts.items()})
        with plainly(f"{self.path}: the checkpoint could not be read"):
            dcp.load(dict(parts), storage_reader=self._reader, planner=PartsLoadPlanner(), no_dist=True)


@contextmanager
def plainly(what: str, ranks: int = 1) -> Iterator[None]:
    """Torch's checkpointing without its remark about a single process, and its failures as one sentence.

    CheckpointException, which is no Exception, wraps what happens inside, on whichever of the ranks, Ctrl-C too; not
    the loss of the connection to one.
    """
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    try:
        yield
    except dcp.CheckpointException as problem:
        rank, (cause, _) = min(problem.failures.items(), key=lambda failure: failure[0])
        if isinstance(cause, (KeyboardInterrupt, FirstlightError)):
            raise cause from None
        where = f"rank {rank}: " if len(problem.failures) < ranks else ""
        said = cause.strerror if isinstance(cause, OSError) else str(cause)
        reason = (said or type(cause).__name__).splitlines()[0]
        raise CheckpointError(f"{what} ({where}{reason}); is the disk full or damaged?") from problem


class _Reader(FileSystemReader):
    """FileSystemReader whose metadata goes through a restricted unpickler, once."""

    _metadata: Metadata | None = None

    def __init__(self, path: Path, unpickler: type[MetadataUnpickler]) -> None:
        super().__init__(path)
        self._unpickler = unpickler

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        if self._metadata is None:
            with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as stream:
                try:
                    metadata = _checked(self._unpickler(stream).load())
                except Exception as problem:
                    raise CheckpointError(f"{self.path}/.metadata: not readable ({problem}).") from None
            metadata.storage_meta = getattr(metadata, "storage_meta", None) or StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            self._metadata = metadata
        return self._metadata

    def reset(self, checkpoint_id: Any = None) -> None:
        """Torch calls this before each load; the folder is the same, so what was read stays."""


def _checked(metadata: Any) -> Metadata:
    """What was unpickled, if it describes tensors that lie in files beside it; ValueError, or whatever the wrong types
    of a forged one lead to."""
    if not isinstance(metadata, Metadata):
        raise ValueError("it is no description of a checkpoint")
    for name, saved in metadata.state_dict_metadata.items():
        if not isinstance(saved, TensorStorageMetadata):
            continue
        sizes = [saved.size, *(size for chunk in saved.chunks for size in (chunk.offsets, chunk.sizes))]
        typed = isinstance(name, str) and isinstance(saved.properties.dtype, torch.dtype)
        if not typed or not all(isinstance(size, torch.Size) for size in sizes):
            raise ValueError(f"the description of {name!r} is damaged")
    for place in metadata.storage_data.values():
        if PurePath(place.relative_path).name != place.relative_path:
            raise ValueError(f"it names the file {place.relative_path!r}, which does not lie beside it")
    return metadata


class MetadataUnpickler(pickle.Unpickler):
    """Knows the classes that torch's checkpoint metadata consists of, and nothing that can act."""

    _ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("pathlib", "PosixPath"),
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
            ("torch.distributed.checkpoint.metadata", "StorageMeta"),
            ("torch.distributed.checkpoint.metadata", "TensorProperties"),
            ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.distributed.checkpoint.planner", "SavePlan"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which checkpoint metadata never needs")
