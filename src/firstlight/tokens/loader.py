"""Batches as tensors, read ahead by a background thread so that the accelerator does not wait for the disk.

The loader keeps nothing that would have to be saved: it starts at any sample, and where it stands is one integer. One
thread is enough, since a batch is a copy out of memory-mapped files, during which Python's lock is released.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from firstlight.support.errors import ConfigError
from firstlight.tokens.batches import document_ids, rank_slice
from firstlight.tokens.objective import Objective, next_token
from firstlight.tokens.stream import Stream


@dataclass(frozen=True)
class TokenBatch:
    """One rank's part of a global batch."""

    first_sample: int
    """First sample of the global batch; the next one begins a global batch size later."""
    input_ids: torch.Tensor
    """[rows, sequence_length] int64."""
    targets: torch.Tensor
    """[rows, sequence_length] int64: what each position is to predict; -100: nothing."""
    document_ids: torch.Tensor | None = None
    """[rows, sequence_length] int32: number of each input's document within its row, when asked for."""


class Loader:
    """Endless iterator over one data-parallel rank's batches, from the global batch that begins at `first_sample` on.

    Use it in a `with` block or call `close`; an abandoned loader stops its thread too.

    `next_sample`: first sample of the batch that `next` returns next; all that resuming needs. `wait_seconds`: total
    time that the consumer has waited for data.
    """

    def __init__(
        self,
        stream: Stream,
        first_sample: int,
        global_batch_size: int,
        data_rank: int = 0,
        data_ranks: int = 1,
        *,
        objective: Objective = next_token,
        prefetch: int = 4,
        eod_id: int | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        """`objective`: makes inputs and targets of the stream's rows. `prefetch`: batches read ahead, at least 1.

        `eod_id`: also yield document ids (attention within documents). `pin_memory`: page-locked tensors for
        asynchronous copies; by default when CUDA is there. Raises ConfigError when the ranks do not divide the global
        batch. An error while reading is raised by `next`, in order.
        """
        if prefetch < 1:
            raise ConfigError(f"prefetch is {prefetch}; the loader reads at least 1 batch ahead.")
        rank_slice(0, global_batch_size, data_rank, data_ranks)
        self.next_sample = first_sample
        self.global_batch_size = global_batch_size
        self.wait_seconds = 0.0
        self._error: BaseException | None = None
        if pin_memory is None:
            pin_memory = torch.cuda.is_available()
        reader = _Reader(
            stream,
            objective,
            first_sample,
            (global_batch_size, data_rank, data_ranks),
            eod_id,
            torch.cuda.current_device() if pin_memory else None,
        )
        self._ready: queue.SimpleQueue[TokenBatch | BaseException] = queue.SimpleQueue()
        self._free = threading.Semaphore(prefetch)
        stop = threading.Event()
        # The thread knows the queue and not the loader, so that a forgotten loader can be collected and stop it.
        thread = threading.Thread(
            target=_fill, args=(reader, self._ready, self._free, stop), name="firstlight-loader", daemon=True
        )
        thread.start()
        self._finish = weakref.finalize(self, _stop, thread, self._free, stop)

    def __iter__(self) -> Iterator[TokenBatch]:
        return self

    def __next__(self) -> TokenBatch:
        if self._error is not None:
            raise self._error
        if not self._finish.alive:
            raise StopIteration
        started = time.perf_counter()
        item = self._ready.get()
        self.wait_seconds += time.perf_counter() - started
        if isinstance(item, BaseException):
            self._error = item
            self.close()
            raise item
        self._free.release()
        self.next_sample = item.first_sample + self.global_batch_size
        return item

    def close(self) -> None:
        """Stop the thread and wait for it; harmless when already closed. Iteration then ends."""
        self._finish()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Reader:
    stream: Stream
    objective: Objective
    next_sample: int
    part: tuple[int, int, int]
    """Global batch size, data rank, data ranks."""
    eod_id: int | None
    pin_device: int | None
    """CUDA device that page-locked memory is for; None: ordinary memory."""

    def read(self) -> TokenBatch:
        offset, count = rank_slice(0, *self.part)
        first = self.next_sample + offset
        rows = self.stream.read(first, count)
        input_ids, targets = self.objective(rows, first)
        documents = None if self.eod_id is None else self._tensor(document_ids(rows[:, :-1], self.eod_id))
        batch = TokenBatch(self.next_sample, self._tensor(input_ids), self._tensor(targets), documents)
        self.next_sample += self.part[0]
        return batch

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array.copy())
        if self.pin_device is None:
            return tensor
        torch.cuda.set_device(self.pin_device)  # a new thread would otherwise open a context on device 0 of every rank
        return tensor.pin_memory()


def _fill(
    reader: _Reader,
    ready: queue.SimpleQueue[TokenBatch | BaseException],
    free: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """The thread: one batch for every free place, until told to stop or an error is passed on."""
    while True:
        free.acquire()
        if stop.is_set():
            return
        try:
            ready.put(reader.read())
        except BaseException as error:
            ready.put(error)
            return


def _stop(thread: threading.Thread, free: threading.Semaphore, stop: threading.Event) -> None:
    stop.set()
    free.release()
    if thread is not threading.current_thread():  # the garbage collector may call from any thread
        thread.join()
