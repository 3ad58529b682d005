"""torch.compile, block by block: equal blocks share one compilation, and it takes seconds instead of minutes."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from firstlight.parallel.blocks import blocks


def why_not_compile(device: torch.device) -> str | None:
    """The reason why torch.compile cannot work here (no compiler, no headers), or None when it can."""
    if device.type == "mps":
        return "torch.compile on Apple MPS is not mature"
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if device.type == "cpu" and not any(shutil.which(compiler) for compiler in compilers if compiler):
        return "no C++ compiler (g++ or clang++) on this machine"
    if device.type == "cuda" and not any(shutil.which(compiler) for compiler in ("gcc", "clang", "cc")):
        return "no C compiler (gcc or clang) on this machine"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "the headers of Python (Python.h) are not installed"
    return None


def apply_compile(model: nn.Module) -> None:
    """Compile every Transformer block (`model.model.layers`) in place; parameter names stay."""
    for block in blocks(model):
        block.compile(fullgraph=True, dynamic=False)
