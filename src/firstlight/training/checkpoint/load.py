"""Loading: which checkpoint is taken, and filling the tensors of any layout from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from firstlight.support.console import warn
from firstlight.support.errors import CheckpointError, FirstlightError
from firstlight.training.checkpoint.folder import (
    checkpoint_folder,
    checkpoint_steps,
    read_state,
    set_aside,
    verify_checkpoint,
)
from firstlight.training.checkpoint.group import Group
from firstlight.training.checkpoint.plans import parts_of
from firstlight.training.checkpoint.reader import CheckpointTensors


def load_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], step: int | None = None, group: dist.ProcessGroup | None = None
) -> dict[str, Any]:
    """Fill `tensors` in place from the newest sound checkpoint in `folder` (or from `step`); returns its state.

    All ranks of `group` call it together (None: the default process group, or this process alone). `tensors` are plain
    tensors and DTensors at any layout, on each rank those that it holds; they may be a part of what was saved (only the
    model, for evaluation). Of a checkpoint whose state says `weights_only` (an imported model), only those called
    "model.…" are filled. A damaged checkpoint is set aside with a warning and the one before it is used, unless `step`
    asks for that very one. CheckpointError on all ranks alike.
    """
    ranks = Group(group)
    path = find_checkpoint(folder, step, group)
    state = ranks.on_first(lambda: read_state(path))
    saved = {name: tensor for name, tensor in tensors.items() if _is_saved(name, state)}
    ranks.on_each(lambda: CheckpointTensors(path).fill(parts_of(saved)))
    return state


def find_checkpoint(folder: Path, step: int | None = None, group: dist.ProcessGroup | None = None) -> Path:
    """The newest sound checkpoint in `folder` (or that of `step`), every file of it verified, the work shared by ranks.

    Rank 0 decides which is taken and sets damaged ones aside; all ranks get the same answer.
    """
    ranks = Group(group)
    steps = ranks.on_first(lambda: checkpoint_steps(folder))
    if step is not None and step not in steps:
        have = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(f"{folder}: no complete checkpoint of step {step}; there are: {have}.")
    for candidate in reversed(steps) if step is None else [step]:
        path = checkpoint_folder(folder, candidate)
        problem = _problem(path, ranks)
        if problem is None:
            return path
        if step is not None:
            raise CheckpointError(problem)
        _put_away(path, problem, ranks)
    raise CheckpointError(f"{folder}: no complete checkpoint to load.")


def _is_saved(name: str, state: Mapping[str, Any]) -> bool:
    return name.startswith("model.") or not state.get("weights_only")


def _problem(path: Path, ranks: Group) -> str | None:
    """What is wrong with a checkpoint, the same sentence on all ranks; each looks at its share of the files."""

    def look() -> str | None:
        try:
            verify_checkpoint(path, ranks.rank, ranks.size)
        except FirstlightError as problem:
            return str(problem)
        return None

    return next((found for found in ranks.on_each(look) if found), None)


def _put_away(path: Path, problem: str, ranks: Group) -> None:
    done = ranks.on_first(lambda: set_aside(path))
    if ranks.is_first:
        warn(f"{problem} {done}; the checkpoint before it is used.")
