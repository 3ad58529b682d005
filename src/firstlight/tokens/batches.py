"""Batch k as a pure function of (token datasets, mixture, seed, k): no state, no index, no dependence on ranks.

A source is cut into sequences of `sequence_length` tokens and one more, the target of the last; neighbours share that
one token. The mixture says which source sample n comes from and how many samples of that source came before; the
latter, divided by the number of its sequences, is the epoch and the place in it, and a permutation keyed by (seed,
source, epoch) turns the place into a sequence. The position in the data is one integer: the samples consumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.mixture import Mixture, mixture_notes, stages_of
from firstlight.tokens.permutation import derive_key, permute, place_before
from firstlight.tokens.split import Split, check_ids
from firstlight.tokens.stream import SampleIds, Stream

SAMPLES_AT_ONCE = 1024
"""Samples that are drawn together and remembered; a permutation costs as much for 1,000 as for 16."""


class SampleStream(Stream):
    """The endless stream of training samples; any part of it can be read, in any order, on any rank.

    `sources` are in alphabetical order. A sequence's tokens start at its number × sequence_length.
    """

    def __init__(self, splits: Mapping[str, Split], data: DataConfig, seed: int, vocab_size: int | None = None) -> None:
        """`splits`: the training split of each source. With `vocab_size`, `read` checks that every id is below it.

        Raises ConfigError for a mixture that cannot be drawn, DataError for a source without one whole sequence.
        """
        sizes = drawn_sizes(splits, data)
        self._mixture = Mixture(stages_of(data, sizes), seed, data.mixture_block_size)
        super().__init__(splits, self._mixture.sources, data, vocab_size)
        self._seed = seed
        self._recent: tuple[int, SampleIds] | None = None

    @property
    def mixture(self) -> Mixture:
        """Which source each sample comes from."""
        return self._mixture

    def samples(self, first: int, count: int) -> SampleIds:
        """Which sequences samples `first` … `first + count − 1` are."""
        block, start = divmod(first, SAMPLES_AT_ONCE)
        if start + count > SAMPLES_AT_ONCE:
            return self._draw(first, count)
        recent = self._recent  # another thread may put its own block there meanwhile
        if recent is None or recent[0] != block:
            recent = self._recent = (block, self._draw(block * SAMPLES_AT_ONCE, SAMPLES_AT_ONCE))
        ids, part = recent[1], slice(start, start + count)
        return SampleIds(ids.source[part], ids.epoch[part], ids.sequence[part])

    def _draw(self, first: int, count: int) -> SampleIds:
        source, ordinal = self.mixture.sources_of(first, count)
        size = np.array([self.num_sequences[name] for name in self.sources], dtype=np.int64)[source]
        epoch, sequence = np.divmod(ordinal, size)
        for number, name in enumerate(self.sources):
            mine = np.flatnonzero(source == number)
            if not len(mine):
                continue
            turns = epoch[mine]  # rising, as ordinals are
            for turn in range(int(turns[0]), int(turns[-1]) + 1):
                these = mine[turns == turn]
                key = derive_key(self._seed, "shuffle", name, turn)
                sequence[these] = permute(sequence[these], self.num_sequences[name], key)
        return SampleIds(source, epoch, sequence)

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Tokens of samples `first` … `first + count − 1`: [count, sequence_length + 1].

        Row n holds the inputs in [:-1] and their targets in [1:]. Raises DataError for an id outside the vocabulary.
        """
        ids = self.samples(first, count)
        length = self.sequence_length
        rows = np.empty((count, length + 1), dtype=np.int64)
        for row, source, sequence in zip(rows, ids.source.tolist(), ids.sequence.tolist(), strict=True):
            row[:] = self._splits[source].read(sequence * length, length + 1)
        if self.vocab_size is not None and rows.size and (rows.max() >= self.vocab_size or rows.min() < 0):
            for row, source, sequence in zip(rows, ids.source.tolist(), ids.sequence.tolist(), strict=True):
                whose = f"source '{self.sources[source]}': "
                check_ids(row, self.vocab_size, self._splits[source], sequence * length, whose)
        return rows

    def pieces(self, sample: int) -> list[tuple[int, int]]:
        """One piece: (first token in the training split of its source, sequence_length + 1)."""
        length = self.sequence_length
        return [(int(self.samples(sample, 1).sequence[0]) * length, length + 1)]

    def samples_with(self, source: str, first: int, end: int, total: int) -> list[int]:
        """Which of the first `total` samples have any of tokens [first, end) of a source's training split, rising.

        Nothing is searched: the permutation of each epoch is run backwards.
        """
        size, drawn = self.num_sequences[source], self.mixture.counts(total)[source]
        sequences = range(max(0, (first - 1) // self.sequence_length), min(size, (end - 1) // self.sequence_length + 1))
        found = []
        for epoch in range(-(-drawn // size)):
            key = derive_key(self._seed, "shuffle", source, epoch)
            for sequence in sequences:
                sample = self.mixture.sample_of(source, epoch * size + place_before(sequence, size, key), total)
                if sample is not None:
                    found.append(sample)
        return sorted(found)

    def notes(self) -> list[str]:
        """What was derived, normalised or left unread, one sentence each, for the caller to print."""
        notes = mixture_notes(self.data, self.mixture, self._num_tokens)
        rest = {name: (self._num_tokens[name] - 1) % self.sequence_length for name in self.sources}
        if any(rest.values()):
            shown = ", ".join(f"{name} {tokens}" for name, tokens in rest.items() if tokens)
            notes.append(f"Tokens after the last whole sequence of a source are not read: {shown}.")
        return notes


def rank_slice(step: int, global_batch_size: int, data_rank: int = 0, data_ranks: int = 1) -> tuple[int, int]:
    """(first sample, count) of a data-parallel rank's part of batch `step`; the parts in rank order are the batch.

    Raises ConfigError when the ranks do not divide the batch.
    """
    assert 0 <= data_rank < data_ranks
    if global_batch_size % data_ranks:
        raise ConfigError(
            f"training.global_batch_size {global_batch_size} is not divisible by {data_ranks} data-parallel ranks."
        )
    count = global_batch_size // data_ranks
    return step * global_batch_size + data_rank * count, count


def document_ids(tokens: NDArray[Any], eod_id: int) -> NDArray[np.int32]:
    """For attention within documents: number of the document, within its row, of every token of [rows, length].

    It is the number of end-of-document tokens strictly before the token; EOD belongs to the document that it ends.
    """
    ends = tokens == eod_id
    return (np.cumsum(ends, axis=-1) - ends).astype(np.int32)


def drawn_sizes(splits: Mapping[str, Split], data: DataConfig) -> dict[str, int]:
    """Training tokens by source. DataError for a source that a mixture draws and that has none."""
    sizes = {source: split.num_tokens for source, split in splits.items()}
    for source, tokens in sizes.items():
        if tokens == 0 and _is_drawn(source, data):
            raise DataError(f"source '{source}' is empty: it has no training tokens; give it text or leave it out.")
    return sizes


def _is_drawn(source: str, data: DataConfig) -> bool:
    mixtures = [data.mixture, *(stage.mixture for stage in data.mixture_stages)]
    return any(not mixture or source in mixture for mixture in mixtures)
