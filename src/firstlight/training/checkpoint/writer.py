"""Saving: every rank writes what it holds while training goes on.

    save   wait for the save before → copy the parts to host memory → give them to the background → train on
    behind it   write and fsync own file → hash it → rank 0: state, manifest, rename into place, retention

The ranks talk over a gloo group of their own, so that nothing in the background can meet the collectives of training.
Between two saves the host memory is kept: it costs what the rank's parts cost, once.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from firstlight.config import CheckpointConfig
from firstlight.support.console import warn
from firstlight.support.errors import CheckpointError, FirstlightError, os_error_sentence
from firstlight.support.files import make_folder, naming, publish_folder, write_json
from firstlight.support.parts import Part
from firstlight.training.checkpoint.folder import (
    MANIFEST,
    STATE,
    checkpoint_folder,
    describe_file,
    manifest,
    prune_checkpoints,
    remove_leftovers,
)
from firstlight.training.checkpoint.group import Group
from firstlight.training.checkpoint.plans import PartsSavePlanner, parts_of
from firstlight.training.checkpoint.reader import plainly

SLOWEST_RANK = timedelta(hours=2)
"""How long ranks that have written wait for one that has not."""


class CheckpointWriter:
    """Writes the checkpoints of a run into `folder`; made, called and closed by all ranks together.

    Removes at the start what killed saves left behind, and after every save what the retention of `config` does not
    keep. One save is under way at a time. What went wrong in the background is raised, on all ranks, by the next call.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, group: dist.ProcessGroup | None = None) -> None:
        """group: a gloo group of nobody else's; None: one is made of all ranks, or none in a single process."""
        self.folder, self.config = folder, config
        if group is None and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            group = dist.new_group(backend="gloo", timeout=SLOWEST_RANK)
        self.group = Group(group)
        self._staged: dict[str, Tensor] = {}
        self._background = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self.group.on_first(lambda: remove_leftovers(folder))

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Write `tensors` and `state` (JSON) as the checkpoint of `step`; whole or absent.

        tensors: plain ones and DTensors under global names; plain ones of the same name hold the same on every rank.
        state: rank 0's is written. They may change as soon as this returns. With `wait`, or when
        `config.asynchronous` is false, it returns when the checkpoint is in place. CheckpointError when this save
        or, not yet reported, the one before it failed.
        """
        self.wait()
        parts, state = parts_of(tensors), {"step": step, **copy.deepcopy(dict(state))}
        if wait or not self.config.asynchronous:
            self._write(step, parts, state)
        else:
            self._under_way = self._background.submit(self._write, step, self._stage(parts), state)

    def wait(self) -> None:
        """Until no save is under way; CheckpointError when the last one failed."""
        under_way = self._under_way
        if under_way is not None:
            try:
                under_way.result()
            finally:
                if under_way.done():
                    self._under_way = None

    def close(self) -> None:
        """`wait`, then give the memory and the thread back."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._staged.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; when the block failed, that stays the error, and a save that failed too is a warning."""
        try:
            self.close()
        except Exception as problem:
            if error is None:
                raise
            if self.group.is_first and isinstance(problem, (FirstlightError, OSError)):
                warn(os_error_sentence(problem) if isinstance(problem, OSError) else str(problem))

    def _stage(self, parts: Mapping[str, Part]) -> dict[str, Part]:
        """The same parts in host memory of their own."""
        on_device = False
        staged = {}
        for name, part in parts.items():
            local, buffer = part.local, self._staged.get(name)
            on_device |= local.is_cuda
            if buffer is None or buffer.shape != local.shape or buffer.dtype != local.dtype:
                buffer = torch.empty(local.shape, dtype=local.dtype, device="cpu", pin_memory=local.is_cuda)
                self._staged[name] = buffer
            buffer.copy_(local, non_blocking=local.is_cuda)
            staged[name] = Part(buffer, part.offsets, part.size)
        if on_device:
            torch.cuda.synchronize()
        return staged

    def _write(self, step: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
        """Write the checkpoint on all ranks together; on any failure none is left, and all ranks raise."""
        group, path = self.group, checkpoint_folder(self.folder, step)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            group.on_first(lambda: _fresh(temporary, path))
            with plainly(f"{path}: the checkpoint could not be written", group.size):
                dcp.save(
                    dict(parts),
                    # Copying ahead would use the current CUDA device, which in this thread is the first one.
                    storage_writer=FileSystemWriter(temporary, per_thread_copy_ahead=0),
                    planner=PartsSavePlanner(self.folder, path),
                    process_group=group.process_group,
                    no_dist=group.size == 1,
                )
            own = group.on_each(lambda: _describe(temporary, f"__{group.rank}_*"))
            group.on_first(lambda: self._publish(temporary, path, state, own))
        except BaseException:
            if group.is_first:
                shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _publish(self, temporary: Path, path: Path, state: Mapping[str, Any], own: list[dict[str, Any]]) -> None:
        """On rank 0, when all files are on the disk: state and manifest, the name of the folder, then retention."""
        with naming(path, temporary):
            for rank, files in enumerate(own):
                for name in files:
                    if not (temporary / name).is_file():
                        raise CheckpointError(
                            f"{path}: the files of rank {rank} are not in the folder of rank 0; "
                            "the run folder must be on a disk that all machines share."
                        )
            write_json(temporary / STATE, dict(state))
            files = {name: facts for part in own for name, facts in part.items()}
            files |= _describe(temporary, ".metadata") | _describe(temporary, STATE)
            write_json(temporary / MANIFEST, manifest(state["step"], files))
            publish_folder(temporary, path)
        prune_checkpoints(self.folder, self.config)


def _fresh(temporary: Path, path: Path) -> None:
    with naming(path, temporary):
        make_folder(temporary.parent)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()


def _describe(folder: Path, pattern: str) -> dict[str, Any]:
    return {file.name: describe_file(file) for file in folder.glob(pattern)}
