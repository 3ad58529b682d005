"""Reading the two pickles of a Megatron checkpoint without running them: `common.pt` and `.metadata`.

Plain values, arguments and data types are read as they are. An object of a class of Megatron's, or of the libraries
of which it keeps objects, becomes an `Opaque`, of which nothing is known and which does nothing; any other name is
refused.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata

from firstlight.support.errors import DataError
from firstlight.training.checkpoint import MetadataUnpickler

COMMON = "common.pt"
MOST_BYTES = 1 << 26
"""Of the pickle in common.pt, which has a few ten kilobytes; a larger one was made to fill memory."""
_STRANGERS = frozenset({"megatron", "numpy", "torch", "transformer_engine", "modelopt"})
"""Packages whose objects are met in checkpoints and not needed."""
_STRANGE_CLASSES = frozenset(
    {
        *(("builtins", name) for name in ("bytearray", "complex", "frozenset", "getattr", "range", "set", "slice")),
        *(("collections", name) for name in ("defaultdict", "deque")),
        *(("pathlib", name) for name in ("Path", "PosixPath", "PurePosixPath")),
        ("_codecs", "encode"),
        ("copyreg", "_reconstructor"),
        ("io", "BytesIO"),
        ("signal", "Signals"),
    }
)
_PLANS = "torch.distributed.checkpoint.planner"
_MEGATRON = "megatron.core.dist_checkpointing."


class Opaque:
    """Takes the place of an object whose class is not loaded; accepts whatever a pickle does to it."""

    def __new__(cls, *arguments: Any, **named: Any) -> Opaque:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Nothing is kept."""

    def __call__(self, *arguments: Any, **named: Any) -> Opaque:
        return self

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is kept."""

    def append(self, value: Any) -> None:
        """Nothing is kept."""

    def extend(self, values: Any) -> None:
        """Nothing is kept."""

    def add(self, value: Any) -> None:
        """Nothing is kept."""

    def __repr__(self) -> str:
        return "an object"


class Arguments:
    """What was an `argparse.Namespace`."""


@dataclass(frozen=True)
class Common:
    """What `common.pt` says of the model."""

    arguments: dict[str, Any] | None
    """Those of the command that trained it; None where the checkpoint has none."""
    iteration: int | None


def read_common(file: Path) -> Common:
    """Read a `common.pt`. DataError when it is damaged, or names what no checkpoint of Megatron's needs."""
    try:
        with zipfile.ZipFile(file) as archive:
            entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
            if entry.file_size > MOST_BYTES:
                raise DataError(f"{file}: its pickle has {entry.file_size:,} bytes, where {MOST_BYTES:,} are plenty.")
            with archive.open(entry) as stream:
                content = _CommonUnpickler(stream).load()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: no such file, and a checkpoint has one; copy it again.") from None
    except StopIteration:
        raise DataError(f"{file}: not a file that torch.save wrote (it has no data.pkl); copy it again.") from None
    except Exception as problem:  # a pickle can fail in any way
        raise DataError(f"{file}: not readable ({str(problem) or type(problem).__name__}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds no table of settings, so it is not of a Megatron checkpoint.")
    arguments, iteration = content.get("args"), content.get("iteration")
    return Common(
        dict(vars(arguments)) if isinstance(arguments, Arguments) else None,
        iteration if isinstance(iteration, int) and not isinstance(iteration, bool) else None,
    )


class _CommonUnpickler(pickle.Unpickler):
    """Makes plain values, `Arguments` and `Opaque`s."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("argparse", "Namespace"), ("types", "SimpleNamespace")):
            return Arguments
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if module.partition(".")[0] in _STRANGERS or (module, name) in _STRANGE_CLASSES:
            return Opaque
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a checkpoint of Megatron's never needs")

    def persistent_load(self, pid: Any) -> Any:
        """The elements of a tensor, of which nothing is needed."""
        return Opaque()


class MegatronMetadata(MetadataUnpickler):
    """Also knows what megatron-core adds to torch's metadata: the plans of the ranks, which are not needed."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(_MEGATRON) and name == "MCoreMetadata":
            return Metadata
        if module.startswith(_MEGATRON) or module == _PLANS or (module, name) == ("builtins", "getattr"):
            return Opaque
        return super().find_class(module, name)
