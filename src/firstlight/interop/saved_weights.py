"""Reading the safetensors files of a model folder, one tensor at a time; pickles are never opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")


class SavedWeights:
    """The tensors in `model.safetensors`, or in the shards that `model.safetensors.index.json` names.

    DataError for a folder that has neither, and for files that are missing, damaged or elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _files(folder)
        self._open: dict[str, Any] = {}
        """Name of each tensor → the open file that it is in."""
        for file in self.files:
            with _named(file):
                opened = safe_open(file, "pt")
                self._open |= dict.fromkeys(opened.keys(), opened)

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._open)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._open[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Type of a tensor; DataError for one that weights of a language model do not have."""
        kind = self._open[name].get_slice(name).get_dtype()
        if kind not in DTYPES:
            raise DataError(f"{self.folder}: '{name}' is of type {kind}; {', '.join(DTYPES)} can be read.")
        return DTYPES[kind]

    def read(self, name: str) -> Tensor:
        """The tensor; its memory is the file's where it can be."""
        with _named(self.folder):
            return self._open[name].get_tensor(name)


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        if (folder / SINGLE).is_file():
            return [folder / SINGLE]
        raise DataError(_why_none(folder))
    try:
        index = read_json(folder / INDEX, "index of weights")
    except FirstlightError as problem:
        raise DataError(str(problem)) from None
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise DataError(f"{folder / INDEX}: not an index of weights (it has no weight_map).")
    files = []
    for name in sorted({str(place) for place in places.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"{folder / INDEX}: names '{name}', where a .safetensors file beside it is due.")
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: missing, and {INDEX} names it; copy or download it again.")
        files.append(folder / name)
    return files


def _why_none(folder: Path) -> str:
    pickled = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLES)
    if not pickled:
        return f"{folder}: holds no {SINGLE} and no {INDEX}; the folder of a model in safetensors format is due."
    return (
        f"{folder}: its weights are in {pickled[0]}, a format that can run code when it is read, and no {SINGLE} is "
        "there; where you trust it, load it with transformers and write it again with "
        "save_pretrained(FOLDER, safe_serialization=True)."
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Failures of the safetensors library as one sentence that names `path`."""
    try:
        yield
    except SafetensorError as problem:
        raise DataError(f"{path}: not a readable safetensors file ({problem}); copy or download it again.") from None
