"""Batch k as a pure function of (token datasets, mixture, seed, k): no state, no index, no dependence on ranks.

A source is cut into sequences of `sequence_length` tokens and one more, the target of the last; neighbours share that
one token. The mixture says which source sample n comes from and how many samples of that source came before; the
latter, divided by the number of its sequences, is the epoch and the place in it, and a permutation keyed by (seed,
source, epoch) turns the place into a sequence. The position in the data is one integer: the samples consumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.dataset import Split, check_ids
from firstlight.tokens.mixture import Mixture, mixture_notes, stages_of
from firstlight.tokens.permutation import derive_key, permute

SAMPLES_AT_ONCE = 1024
"""Samples that are drawn together and remembered; a permutation costs as much for 1,000 as for 16."""


@dataclass(frozen=True)
class SampleIds:
    """Which sequences a run of samples is: three arrays of [count]."""

    source: NDArray[np.int32]
    """Number of the source in `SampleStream.sources`."""
    epoch: NDArray[np.int64]
    """Passes over the source that were complete before this one."""
    sequence: NDArray[np.int64]
    """Number of the sequence; its tokens start at sequence × sequence_length."""


class SampleStream:
    """The endless stream of training samples; any part of it can be read, in any order, on any rank.

    `sources`: names of the sources that are drawn, in alphabetical order. `num_sequences`: sequences by source,
    floor((tokens − 1) / sequence_length).
    """

    def __init__(self, splits: Mapping[str, Split], data: DataConfig, seed: int, vocab_size: int | None = None) -> None:
        """`splits`: the training split of each source. With `vocab_size`, `read` checks that every id is below it.

        Raises ConfigError for a mixture that cannot be drawn, DataError for a source without one whole sequence.
        """
        self._num_tokens = {source: split.num_tokens for source, split in splits.items()}
        for source, tokens in self._num_tokens.items():
            if tokens == 0 and _is_drawn(source, data):
                raise DataError(f"source '{source}' is empty: it has no training tokens; give it text or leave it out.")
        self.mixture = Mixture(stages_of(data, self._num_tokens), seed, data.mixture_block_size)
        self.sources = self.mixture.sources
        self.sequence_length = data.sequence_length
        self.num_sequences = {name: (self._num_tokens[name] - 1) // data.sequence_length for name in self.sources}
        for source, sequences in self.num_sequences.items():
            if sequences == 0:
                tokens = self._num_tokens[source]
                raise DataError(
                    f"source '{source}' has {tokens:,} training tokens, fewer than one sequence of "
                    f"{data.sequence_length:,} and its last target; give it more text, leave it out"
                    + (f", or set data.sequence_length to at most {tokens - 1}." if tokens > 1 else ".")
                )
        self.data = data
        self.vocab_size = vocab_size
        self._seed = seed
        self._splits = [splits[source] for source in self.sources]
        self._recent: tuple[int, SampleIds] | None = None

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

    def split(self, source: str) -> Split:
        """The training split of a source."""
        return self._splits[self.sources.index(source)]

    def counts(self, total_samples: int) -> dict[str, int]:
        """Samples that the first `total_samples` draw from each source."""
        return self.mixture.counts(total_samples)

    def epochs_used(self, total_samples: int) -> dict[str, float]:
        """Passes over each source in the first `total_samples`."""
        return {name: count / self.num_sequences[name] for name, count in self.counts(total_samples).items()}

    def check_supply(self, total_samples: int, global_batch_size: int = 1) -> None:
        """Raise ConfigError when the run would go over a source more than `data.max_epochs` times.

        `total_samples` is the length of the run; `global_batch_size` (samples per step) is for the advice only.
        """
        supply, needed = self._supply(), self.counts(total_samples)
        over = [name for name in self.sources if needed[name] > supply[name]]
        if not over:
            return
        worst = max(over, key=lambda name: needed[name] / self.num_sequences[name])
        size, need = self.num_sequences[worst], needed[worst]
        others = f" (so does {', '.join(repr(name) for name in over if name != worst)})" if len(over) > 1 else ""
        choices = [
            f"data.max_epochs of {_ceil_hundredths(max(Fraction(needed[n], self.num_sequences[n]) for n in over))}"
        ]
        if supply[worst]:
            share = math.floor(10_000 * supply[worst] / total_samples) / 10_000
            choices.append(f"a share of about {share:g} or less for '{worst}' (now {need / total_samples:.4g})")
        steps = self.longest_run(total_samples // global_batch_size, global_batch_size)
        if steps:
            choices.append(f"at most {steps:,} training steps of {global_batch_size} samples")
        raise ConfigError(
            f"data.mixture draws {need:,} sequences from source '{worst}', which has {size:,} (of "
            f"{self.sequence_length} tokens; {self._num_tokens[worst]:,} tokens): {need / size:.4g} epochs, above "
            f"data.max_epochs {self.data.max_epochs:g}{others}; possible: {', or '.join(choices)}, or more text."
        )

    def longest_run(self, steps: int, global_batch_size: int) -> int:
        """Most steps, up to `steps`, for which no source is gone over more than `data.max_epochs` times."""
        supply = self._supply()
        enough, too_many = 0, steps + 1
        while too_many - enough > 1:
            middle = (enough + too_many) // 2
            counts = self.counts(middle * global_batch_size)
            if all(counts[name] <= supply[name] for name in self.sources):
                enough = middle
            else:
                too_many = middle
        return enough

    def _supply(self) -> dict[str, int]:
        """Samples that each source may give within `data.max_epochs`."""
        limit = Fraction(repr(self.data.max_epochs))
        return {name: math.floor(size * limit) for name, size in self.num_sequences.items()}

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


def _is_drawn(source: str, data: DataConfig) -> bool:
    mixtures = [data.mixture, *(stage.mixture for stage in data.mixture_stages)]
    return any(not mixture or source in mixture for mixture in mixtures)


def _ceil_hundredths(number: Fraction) -> str:
    return f"{math.ceil(number * 100) / 100:g}"
