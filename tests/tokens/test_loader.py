"""The loader: the stream's batches as tensors, errors in order, a clean end, no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from firstlight.config import DataConfig, MaskingConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.loader import Loader
from firstlight.tokens.masking import Masking
from firstlight.tokens.objective import hidden_tokens


class Row:
    """A split in memory."""

    def __init__(self, tokens):
        self.tokens = np.asarray(tokens, dtype=np.uint16)
        self.num_tokens = len(self.tokens)

    def read(self, start, length):
        return self.tokens[start : start + length]


class FailingStream:
    """A stream whose batch at sample 40 cannot be read; it counts what was read."""

    def __init__(self):
        self.stream, self.reads = stream(), 0

    def read(self, first, count):
        self.reads += 1
        if first >= 40:
            raise DataError("shard 7 is damaged")
        return self.stream.read(first, count)


def stream():
    return SampleStream({"a": Row(np.arange(5000) % 50)}, DataConfig(sequence_length=16), seed=3)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "firstlight-loader"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert loader_threads() == []
    yield
    assert loader_threads() == []


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_ranks_together_yield_the_streams_batches_as_inputs_and_targets(ranks):
    loaders = [Loader(stream(), 48, 24, rank, ranks, prefetch=2) for rank in range(ranks)]
    for step in range(5):
        parts = [next(loader) for loader in loaders]
        expected = torch.from_numpy(stream().read(48 + 24 * step, 24))
        assert [part.first_sample for part in parts] == [48 + 24 * step] * ranks
        assert torch.equal(torch.cat([part.input_ids for part in parts]), expected[:, :-1])
        assert torch.equal(torch.cat([part.targets for part in parts]), expected[:, 1:])
        assert all(part.document_ids is None for part in parts)
        assert parts[0].input_ids.dtype == parts[0].targets.dtype == torch.int64
        assert parts[0].input_ids.is_contiguous()
    for loader in loaders:
        loader.close()


def test_starting_from_next_sample_goes_on_as_if_never_stopped():
    with Loader(stream(), 0, 8) as loader:
        whole = [next(loader).input_ids for _ in range(6)]
    with Loader(stream(), 0, 8) as loader:
        assert loader.next_sample == 0
        for _ in range(3):
            next(loader)
        position = loader.next_sample
    assert position == 24
    with Loader(stream(), position, 8) as loader:
        assert all(torch.equal(next(loader).input_ids, batch) for batch in whole[3:])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_objective_makes_inputs_and_targets_the_same_on_any_ranks_and_after_a_resume(tiny_tokenizer, ranks):
    def objective():
        return hidden_tokens(Masking(MaskingConfig(), tiny_tokenizer, seed=8))

    with Loader(stream(), 0, 24, objective=objective(), eod_id=0) as alone:
        whole = [next(alone) for _ in range(5)]
    loaders = [Loader(stream(), 48, 24, rank, ranks, objective=objective(), eod_id=0) for rank in range(ranks)]
    for step in range(2, 5):
        parts = [next(loader) for loader in loaders]
        for field in ("input_ids", "targets", "document_ids"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole[step], field))
    for loader in loaders:
        loader.close()
    rows = torch.from_numpy(stream().read(48, 24))[:, :-1]
    hidden = whole[2].targets != -100
    assert hidden.any(dim=1).all()
    assert torch.equal(whole[2].targets[hidden], rows[hidden])
    assert torch.equal(whole[2].input_ids[~hidden], rows[~hidden])


def test_document_ids_on_request():
    with Loader(stream(), 0, 8, eod_id=0) as loader:
        batch = next(loader)
    before = torch.cumsum(batch.input_ids == 0, 1) - (batch.input_ids == 0).long()
    assert torch.equal(batch.document_ids.long(), before)
    assert batch.document_ids.max() >= 1


def test_an_error_comes_after_the_good_batches_and_stays():
    with Loader(FailingStream(), 0, 8, prefetch=8) as loader:
        assert [next(loader).first_sample for _ in range(5)] == [0, 8, 16, 24, 32]
        for _ in range(2):
            with pytest.raises(DataError, match="shard 7"):
                next(loader)
        assert loader.next_sample == 40


def test_never_more_than_prefetch_batches_ahead():
    counted = FailingStream()
    with Loader(counted, 0, 1, prefetch=3) as loader:
        for _ in range(4):
            next(loader)
        _until(lambda: counted.reads == 7)
        time.sleep(0.05)
        assert counted.reads == 7


def test_closing_ends_the_iteration_and_may_be_repeated():
    loader = Loader(stream(), 0, 8)
    next(loader)
    loader.close()
    loader.close()
    assert list(loader) == []


def test_a_forgotten_loader_stops_its_thread():
    loader = Loader(stream(), 0, 8)
    next(loader)
    assert len(loader_threads()) == 1
    del loader
    gc.collect()
    assert loader_threads() == []


def test_waiting_is_what_the_clock_says_over_all_batches(monkeypatch):
    clock = iter([10.0, 13.0, 20.0, 20.5])
    with Loader(stream(), 0, 8) as loader:
        monkeypatch.setattr("firstlight.tokens.loader.time", SimpleNamespace(perf_counter=lambda: next(clock)))
        next(loader)
        next(loader)
        monkeypatch.undo()
        assert loader.wait_seconds == 3.5


def test_wrong_arguments_are_refused_before_a_thread_starts():
    with pytest.raises(ConfigError, match="24 is not divisible by 5"):
        Loader(stream(), 0, 24, 0, 5)
    with pytest.raises(ConfigError, match="at least 1 batch"):
        Loader(stream(), 0, 24, prefetch=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_batches_are_page_locked_with_cuda():
    with Loader(stream(), 0, 8) as loader:
        assert next(loader).input_ids.is_pinned()


def _until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
