"""Batches: the same at any number of ranks, every sequence once an epoch, sensible errors, the real dataset too."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.batches import SAMPLES_AT_ONCE, SampleStream, document_ids, rank_slice
from firstlight.tokens.split import Split

LENGTH = 8


class Row:
    """A split in memory: one row of tokens, in one shard."""

    def __init__(self, tokens, dtype=np.uint16):
        self.tokens = np.asarray(tokens, dtype=dtype)

    @property
    def num_tokens(self):
        return len(self.tokens)

    remedy = "so tokenize it again"

    def place(self, position):
        return f"memory/train-00000.bin, token {position}"

    def read(self, start, length):
        assert 0 <= start <= start + length <= len(self.tokens)
        return self.tokens[start : start + length]


def data(**more):
    return DataConfig(**{"sequence_length": LENGTH, "mixture_block_size": 16, **more})


def sources(**sizes):
    """Sources whose tokens tell where they are from: thousands for the source, the rest the position."""
    return {name: Row(number * 10_000 + np.arange(size)) for number, (name, size) in enumerate(sorted(sizes.items()))}


def three():
    return SampleStream(
        sources(books=500, code=333, web=1234), data(mixture={"web": 0.6, "books": 0.3, "code": 0.1}), seed=7
    )


@given(first=st.integers(0, 10**12), seed=st.integers(0, 2**64))
@settings(max_examples=30)
def test_rows_are_consecutive_tokens_of_the_source_that_the_ids_name(first, seed):
    stream = SampleStream(sources(books=500, code=333, web=1234), data(), seed)
    rows, ids = stream.read(first, 20), stream.samples(first, 20)
    assert rows.dtype == np.int64
    assert rows.shape == (20, LENGTH + 1)
    expected = ids.source * 10_000 + ids.sequence * LENGTH
    assert np.array_equal(rows, expected[:, None] + np.arange(LENGTH + 1))


@given(step=st.integers(0, 10**9), ranks=st.sampled_from([1, 2, 3, 4, 8]))
@settings(max_examples=40)
def test_the_ranks_together_read_the_global_batch(step, ranks):
    stream = three()
    whole = stream.read(step * 24, 24)
    parts = [stream.read(*rank_slice(step, 24, rank, ranks)) for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts), whole)


@given(first=st.integers(0, 300), count=st.integers(0, 60))
@settings(max_examples=40)
def test_any_part_of_the_stream_can_be_read_alone(first, count):
    assert np.array_equal(three().read(first, count), three().read(0, 360)[first : first + count])


@given(
    sizes=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(LENGTH + 1, 400), min_size=1),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_every_sequence_is_read_once_in_every_epoch(sizes, seed):
    stream = SampleStream(sources(**sizes), data(), seed)
    ids = stream.samples(0, 1000)
    for number, name in enumerate(stream.sources):
        size = (sizes[name] - 1) // LENGTH
        sequence, epoch = ids.sequence[ids.source == number], ids.epoch[ids.source == number]
        assert np.array_equal(epoch, np.arange(len(epoch)) // size)
        for start in range(0, len(sequence) - size + 1, size):
            assert np.array_equal(np.sort(sequence[start : start + size]), np.arange(size))


def test_epochs_seeds_and_sources_have_orders_of_their_own():
    sizes = {"a": 100 * LENGTH + 1, "b": 100 * LENGTH + 1}
    orders = []
    for seed in (1, 2):
        ids = SampleStream(sources(**sizes), data(), seed).samples(0, 800)
        for number in (0, 1):
            mine = ids.sequence[ids.source == number]
            orders += [mine[:100], mine[100:200]]
    assert all(np.count_nonzero(one == other) < 15 for i, one in enumerate(orders) for other in orders[:i])


def test_one_more_sequence_exactly_when_its_last_target_is_there():
    for tokens, sequences in ((9, 1), (16, 1), (17, 2), (24, 2), (25, 3)):
        assert SampleStream(sources(a=tokens), data(), 1).num_sequences == {"a": sequences}


def test_the_order_in_which_sources_are_given_does_not_matter():
    splits = sources(books=500, code=333, web=1234)
    turned = dict(reversed(splits.items()))
    assert np.array_equal(SampleStream(splits, data(), 3).read(0, 99), SampleStream(turned, data(), 3).read(0, 99))


def test_a_later_stage_changes_the_sources_and_the_epochs_go_on():
    later = {"start_tokens": 100 * LENGTH, "mixture": {"books": 1.0}}
    stream = SampleStream(
        sources(books=500, web=1234), data(mixture={"web": 0.75, "books": 0.25}, mixture_stages=[later]), seed=1
    )
    ids = stream.samples(0, 200)
    books = stream.sources.index("books")
    assert np.count_nonzero(ids.source[:96] == books) == 24
    assert (ids.source[100:] == books).all()
    epochs = ids.epoch[ids.source == books]
    assert np.array_equal(epochs, np.arange(len(epochs)) // 62)
    assert stream.counts(200) == {"books": len(epochs), "web": 200 - len(epochs)}
    assert stream.epochs_used(200)["books"] == len(epochs) / 62


def test_batch_slices_tile_the_stream():
    slices = [rank_slice(step, 24, rank, 3) for step in range(4) for rank in range(3)]
    assert slices[0] == (0, 8)
    assert all(first + count == following for (first, count), (following, _) in pairwise(slices))
    with pytest.raises(ConfigError, match="24 is not divisible by 5"):
        rank_slice(0, 24, 0, 5)


def test_supply_that_lasts_is_no_error_and_one_sample_more_is():
    stream = SampleStream(sources(a=10 * LENGTH + 1), data(max_epochs=2.5), 1)
    stream.check_supply(25)
    with pytest.raises(ConfigError, match="draws 26 sequences from source 'a', which has 10 "):
        stream.check_supply(26)


def test_supply_error_gives_choices_that_are_right_and_the_next_one_wrong():
    mixture = {"books": 0.5, "web": 0.5}
    splits = sources(books=20 * LENGTH + 1, web=1000 * LENGTH + 1)
    with pytest.raises(ConfigError) as caught:
        SampleStream(splits, data(mixture=mixture), 1).check_supply(640, 8)
    assert str(caught.value) == (
        "data.mixture draws 320 sequences from source 'books', which has 20 (of 8 tokens; 161 tokens): 16 epochs, "
        "above data.max_epochs 4; possible: data.max_epochs of 16, or a share of about 0.125 or less for 'books' "
        "(now 0.5), or at most 20 training steps of 8 samples, or more text."
    )
    SampleStream(splits, data(mixture=mixture, max_epochs=16), 1).check_supply(640)
    SampleStream(splits, data(mixture={"books": 0.125, "web": 0.875}), 1).check_supply(640)
    SampleStream(splits, data(mixture=mixture), 1).check_supply(20 * 8)
    for wrong, samples in (
        ({"mixture": mixture, "max_epochs": 15.9}, 640),
        ({"mixture": {"books": 0.13, "web": 0.87}}, 640),
        ({"mixture": mixture}, 21 * 8),
    ):
        with pytest.raises(ConfigError):
            SampleStream(splits, data(**wrong), 1).check_supply(samples)


def test_supply_error_names_every_source_that_runs_out():
    with pytest.raises(ConfigError, match=r"source 'code'.*so does 'books'"):
        SampleStream(
            sources(books=50, code=40, web=9000), data(mixture={"books": 1, "code": 1, "web": 1}), 1
        ).check_supply(300)


def test_an_empty_source_and_one_below_a_sequence_are_named():
    with pytest.raises(DataError, match="source 'a' is empty"):
        SampleStream(sources(a=0, b=99), data(), 1)
    with pytest.raises(DataError, match=r"source 'a' has 8 training tokens, fewer than one sequence of 8 .* at most 7"):
        SampleStream(sources(a=8, b=99), data(), 1)
    assert SampleStream(sources(a=0, b=99), data(mixture={"b": 1.0}), 1).sources == ("b",)


def test_notes_count_the_tokens_that_are_not_read():
    stream = SampleStream(sources(a=99, b=97), data(mixture={"a": 1, "b": 1}), 1)
    notes = stream.notes()
    assert notes[0].startswith("data.mixture: the weights sum to 2")
    assert notes[1:] == ["Tokens after the last whole sequence of a source are not read: a 2."]


@pytest.mark.parametrize(("dtype", "wrong"), [(np.uint16, 60_000), (np.int32, 1000), (np.int32, -1)])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(dtype, wrong):
    tokens = np.arange(500) % 1000
    tokens[123] = wrong
    splits = {"good": Row(np.arange(500)), "bad": Row(tokens, dtype)}
    SampleStream(splits, data(), 1).read(0, 200)
    with pytest.raises(
        DataError, match=rf"source 'bad': token id {wrong} at memory/train-00000\.bin, token 123 .* of 1000"
    ):
        SampleStream(splits, data(), 1, vocab_size=1000).read(0, 200)
    SampleStream({"good": splits["good"]}, data(), 1, vocab_size=500).read(0, 200)


def test_document_ids_change_after_an_end_of_document():
    tokens = np.array([[5, 6, 0, 7, 0, 0, 8], [0, 5, 5, 5, 5, 5, 0]])
    assert document_ids(tokens, 0).tolist() == [[0, 0, 0, 1, 1, 2, 3], [0, 1, 1, 1, 1, 1, 1]]
    assert document_ids(tokens, 0).dtype == np.int32


def test_shards_on_disk_read_as_one_row(tmp_path):
    from firstlight.tokens.indexed import IndexedWriter
    from firstlight.tokens.split import Shard

    shards, start = [], 0
    for number, tokens in enumerate((37, 5, 400)):
        with IndexedWriter(tmp_path / f"train-{number:05d}", np.uint16) as writer:
            writer.add_document(np.arange(start, start + tokens))
        start += tokens
        shards.append(Shard(f"train-{number:05d}", tokens, 1, 0, writer.bin_bytes, writer.idx_bytes, "", ""))
    split = Split(tmp_path, shards, np.dtype(np.uint16))
    one = SampleStream({"a": split}, data(), 5, vocab_size=442)
    other = SampleStream({"a": Row(np.arange(442))}, data(), 5)
    assert np.array_equal(one.read(0, 100), other.read(0, 100))
    with pytest.raises(DataError, match=r"train-00002\.bin, token"):
        SampleStream({"a": split}, data(), 5, vocab_size=42).read(0, 55)


def test_a_thread_that_asks_for_other_samples_meanwhile_changes_nothing():
    """The loader's thread reads ahead while the trainer asks which texts a skipped step had."""

    class Interrupted(SampleStream):
        interrupted = False

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_recent" and value is not None and not self.interrupted:
                self.interrupted = True
                self.samples(10 * SAMPLES_AT_ONCE, 8)

    arguments = sources(books=500, code=333, web=1234), data(mixture={"web": 0.6, "books": 0.3, "code": 0.1})
    alone, interrupted = SampleStream(*arguments, seed=7), Interrupted(*arguments, seed=7)
    assert np.array_equal(interrupted.samples(0, 8).sequence, alone.samples(0, 8).sequence)
    assert interrupted.interrupted
