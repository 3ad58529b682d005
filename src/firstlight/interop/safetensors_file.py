"""Writing a .safetensors file tensor by tensor, from shapes known beforehand.

safetensors' own `save_file` takes all tensors of a file at once; here one is in memory at a time. The format: the
length of the header (8 bytes, little-endian), the header in JSON (type, shape and place of each tensor), the elements
one tensor after the other. https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from firstlight.support.errors import ConfigError

TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
BLOCK_BYTES = 1 << 24


def write_safetensors(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    read: Callable[[str], Tensor],
    dtype: torch.dtype,
    wrote: Callable[[int], object] = lambda size: None,
) -> None:
    """Write `read(name)` of every name in `shapes`, in their order, as elements of `dtype`.

    wrote: called with the bytes of each tensor that is written. OSError of a disk that takes no more; ConfigError for
    a finite number that `dtype` cannot hold.
    """
    header = _header(shapes, dtype)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name, shape in shapes.items():
            tensor = read(name)
            assert tuple(tensor.shape) == tuple(shape), name
            for block in _blocks(tensor):
                converted = block.to("cpu", dtype).contiguous()
                check_range(name, block, converted)
                file.write(converted.flatten().view(torch.uint8).numpy().data)
            wrote(math.prod(shape) * dtype.itemsize)


def _header(shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def check_range(name: str, block: Tensor, converted: Tensor) -> None:
    """ConfigError for a finite number in `block` that the type of `converted`, the same block, cannot hold."""
    if block.dtype != converted.dtype and bool((converted.isinf() & ~block.to("cpu").isinf()).any()):
        largest = block.abs().nan_to_num(posinf=0).max().item()
        kind = str(converted.dtype).removeprefix("torch.")
        raise ConfigError(f"'{name}' holds {largest:g}, which {kind} cannot; export another dtype, as float32.")


def _blocks(tensor: Tensor) -> Sequence[Tensor]:
    """The tensor in rows of some megabytes, so that changing type or order costs no second copy of it."""
    row_bytes = max(1, tensor.nbytes // max(1, tensor.shape[0]))
    return tensor.split(max(1, BLOCK_BYTES // row_bytes))
