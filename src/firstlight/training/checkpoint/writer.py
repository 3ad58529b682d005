"""Saving: every rank writes what it holds while training goes on.

    save   wait for the save before → copy the parts to host memory → give them to the background → train on
    behind it   write and fsync own file → hash it → rank 0: state, manifest, rename into place, second place, retention

The ranks talk over a gloo group of their own, so that nothing in the background can meet the collectives of training.
Between two saves the host memory is kept: it costs what the rank's parts cost, once.

A disk that takes nothing does not end training: what went wrong is told at once, and saving is tried again, at steps
that are the same on all ranks. Only a save that is waited for raises.
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
from firstlight.training.checkpoint.second_place import SecondPlace
from firstlight.training.checkpoint.trouble import Failed, Trouble

SLOWEST_RANK = timedelta(hours=2)
"""How long ranks that have written wait for one that has not."""


TRIES_PER_INTERVAL = 10
"""While saving fails, it is tried so often in `interval_steps`."""


class CheckpointWriter:
    """Writes the checkpoints of a run into `folder`; made, called and closed by all ranks together.

    Removes at the start what killed saves left behind, and after every save what the retention of `config` does not
    keep. One save is under way at a time.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, failed: Failed | None = None) -> None:
        """failed: is told (step, reason) of each save that fails while training goes on; on rank 0, from another
        thread. Raises as `SecondPlace` does where `config.copy_to` is no place to copy to."""
        self.folder, self.config = folder, config
        self._together = Group()
        group = None
        if self._together.size > 1:
            group = dist.new_group(backend="gloo", timeout=SLOWEST_RANK)
        self.group = Group(group)
        self._staged: dict[str, Tensor] = {}
        self._background = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[bool] | None = None
        self._tried_at: int | None = None
        self._failed = False
        self._pause = max(1, config.interval_steps // TRIES_PER_INTERVAL)
        self._trouble = Trouble(folder, self._pause, failed)
        self._second: SecondPlace | None = None
        self.group.on_first(self._begin)

    def _begin(self) -> None:
        remove_leftovers(self.folder)
        if self.config.copy_to:
            self._second = SecondPlace(self.folder, self.config)

    def due(self, step: int) -> bool:
        """Whether to save at `step`, asked at every step: each `interval_steps`, and sooner after one that failed."""
        if step % self.config.interval_steps == 0:
            return True
        if self._tried_at is None or (step - self._tried_at) % self._pause:
            return False
        if self._under_way is not None and self._together.on_first(self._under_way.done):
            self.wait()
        return self._under_way is None and self._failed

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Write `tensors` and `state` (JSON) as the checkpoint of `step`; whole or absent.

        tensors: plain ones and DTensors under global names; plain ones of the same name hold the same on every rank.
        state: rank 0's is written. They may change as soon as this returns; with `wait`, or when
        `config.asynchronous` is false, that is when the checkpoint is in place. When it cannot be written:
        CheckpointError or OSError with `wait`; else that is told, and it is soon `due` again.
        """
        self.wait()
        self._tried_at = step
        parts, state = parts_of(tensors), {"step": step, **copy.deepcopy(dict(state))}
        if wait:
            self._write(step, parts, state)
            self._failed = False
        elif not self.config.asynchronous:
            self._failed = not self._try(step, parts, state)
        else:
            self._under_way = self._background.submit(self._try, step, self._stage(parts), state)

    def wait(self) -> None:
        """Until no save is under way."""
        under_way = self._under_way
        if under_way is not None:
            try:
                self._failed = not under_way.result()
            finally:
                if under_way.done():
                    self._under_way = None

    def close(self) -> None:
        """`wait`, also for what goes to the second place; then give the memory and the thread back."""
        try:
            self.wait()
            if self._second is not None:
                self._second.close()
        finally:
            self._background.shutdown()
            self._staged.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, after Ctrl-C without waiting for the second place; when the block failed, that stays the error."""
        if isinstance(error, KeyboardInterrupt):
            self._second = None
        try:
            self.close()
        except Exception:
            if error is None:
                raise

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

    def _try(self, step: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> bool:
        """Whether the checkpoint could be written; rank 0 tells why not."""
        try:
            self._write(step, parts, state)
        except (FirstlightError, OSError) as problem:
            if self.group.is_first:
                self._trouble.tell(step, os_error_sentence(problem) if isinstance(problem, OSError) else str(problem))
            return False
        if self.group.is_first:
            self._trouble.over(step)
        return True

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
                    storage_writer=_Files(temporary, per_thread_copy_ahead=0),
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
        if self._second is not None:
            self._second.copy(path)
        prune_checkpoints(self.folder, self.config, self._second.in_use if self._second else ())


class _Files(FileSystemWriter):
    """Says what the operating system refused, which torch only notes beside an error of its own."""

    def write_data(self, *arguments: Any) -> Any:
        try:
            return super().write_data(*arguments)
        except RuntimeError as problem:
            if isinstance(problem.__context__, OSError):
                raise problem.__context__ from None
            raise


def _fresh(temporary: Path, path: Path) -> None:
    with naming(path, temporary):
        make_folder(temporary.parent)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()


def _describe(folder: Path, pattern: str) -> dict[str, Any]:
    return {file.name: describe_file(file) for file in folder.glob(pattern)}
